// Pictures from numbers: whiskers in cells, bars, the curve of a training, and the accuracy-cost picture.

const LOOKS = { better: "better", worse: "worse", "not told apart": "open", reference: "reference", "": "open" };
const SYMBOLS = { better: "▲", worse: "▼", open: "○", reference: "◆" };

function linear(from, to, low, high) {
  return (value) => low + ((value - from) / (to - from || 1)) * (high - low);
}

function dot(look, x, y, size = 3.6) {
  if (look === "better") return svg("path", { class: "dot", d: `M${x} ${y - size}L${x + size} ${y + size * 0.8}H${x - size}Z` });
  if (look === "worse") return svg("path", { class: "dot", d: `M${x} ${y + size}L${x + size} ${y - size * 0.8}H${x - size}Z` });
  if (look === "reference") return svg("path", { class: "dot", d: `M${x} ${y - size}L${x + size} ${y}L${x} ${y + size}L${x - size} ${y}Z` });
  return svg("circle", { class: "dot", cx: x, cy: y, r: size * 0.85 });
}

function upright(look, x, title) {
  return svg("line", { class: look, x1: x, x2: x, y1: 0, y2: 22 }, title && svg("title", null, title));
}

// One value with its interval on an axis that all rows share.
function whisker({ value, low, high, scale, verdict, lines = [], seeds = [], text }) {
  const x = linear(scale[0], scale[1], 7, 193);
  const look = LOOKS[verdict || ""];
  return svg("svg", { class: `whisker ${look}`, viewBox: "0 0 200 22", role: "img", "aria-label": text },
    svg("line", { class: "track", x1: 7, x2: 193, y1: 11, y2: 11 }),
    svg("title", null, text), lines.map((line) => upright(line.look, x(line.at), line.title)),
    known(low) && svg("rect", { class: "span", x: x(low), y: 3, width: Math.max(x(high) - x(low), 1), height: 16, rx: 1.5 }),
    seeds.map((seed) => svg("line", { class: "seed", x1: x(seed), x2: x(seed), y1: 3, y2: 8 })),
    known(value) && dot(look, x(value), 11));
}

function axisHead(title, scale) {
  const [from, to] = scale.map((value) => String(Number(value.toFixed(4))).replace("-", MINUS));
  return [title, " ", el("span", { class: "scale" }, `${from} to ${to}`)];
}

function rounded(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value)) / 2;
  return Math.ceil(value / step) * step;
}

// Round numbers from 0 to at least the value, four to eight of them.
function ticksTo(value) {
  if (!(value > 0)) return { ticks: [0, 1], digits: 0 };
  const unit = 10 ** Math.floor(Math.log10(value / 4));
  const step = unit * [1, 2, 5, 10].find((size) => size * unit * 7 >= value);
  const count = Math.ceil(value / step - 1e-9);
  return { ticks: Array.from({ length: count + 1 }, (_, i) => i * step), digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function bar(value, low, high, top) {
  const x = linear(0, top, 0, 100);
  return svg("svg", { viewBox: "0 0 104 16", "aria-hidden": "true" },
    svg("rect", { class: "bar-fill", x: 0, y: 2, width: Math.max(x(value), 0), height: 12 }),
    known(low) && svg("path", { class: "bar-line", d: `M${x(low)} 8H${x(high)}M${x(low)} 5v6M${x(high)} 5v6` }));
}

function spark(values) {
  const x = linear(0, values.length - 1, 2, 254);
  const y = linear(Math.min(...values), Math.max(...values), 44, 4);
  const path = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return svg("svg", { class: "spark", viewBox: "0 0 256 48", role: "img",
    "aria-label": `validation score over ${values.length} epochs` }, svg("path", { d: path }));
}

const SHAPES = { floor: "square", counted: "circle", trained: "diamond", generative: "triangle", submitted: "cross" };

function shape(kind, x, y, size) {
  const s = size;
  const paths = {
    square: `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`,
    diamond: `M${x} ${y - s * 1.3}L${x + s * 1.3} ${y}L${x} ${y + s * 1.3}L${x - s * 1.3} ${y}Z`,
    triangle: `M${x} ${y - s * 1.25}L${x + s * 1.2} ${y + s}H${x - s * 1.2}Z`,
    cross: `M${x - s} ${y - s}L${x + s} ${y + s}M${x + s} ${y - s}L${x - s} ${y + s}`,
  };
  return kind in paths ? svg("path", { d: paths[kind] }) : svg("circle", { cx: x, cy: y, r: s });
}

const PLOT = { width: 960, height: 460, left: 62, right: 938, top: 16, bottom: 404 };

// Points (x, y, bounds of y, family, name, text) on a logarithmic x axis. What costs nothing, or less than a hundredth of the
// median, stands at its left end, apart from the scale.
function scatter({ points, named: shownNames, xTitle, yTitle, xForm, tell, open }) {
  const costs = points.map((point) => point.x).filter((x) => x > 0).sort((a, b) => a - b);
  const least = (costs[Math.floor(costs.length / 2)] || 1) / 100;
  const [from, to] = decades(costs.filter((x) => x >= least));
  const below = points.filter((point) => point.x < least);
  const free = below.length === 0 ? null : below.every((point) => point.x === 0) ? "0" : `below ${xForm(from)}`;
  const start = PLOT.left + (free ? 110 : 16);
  const x = (value) => (value >= least ? linear(Math.log10(from), Math.log10(to), start, PLOT.right)(Math.log10(value)) : PLOT.left + 34);
  const scale = ticksTo(Math.max(...points.map((point) => point.bounds[1])) * 1.02);
  const y = linear(0, scale.ticks.at(-1), PLOT.bottom, PLOT.top);
  const front = frontier(points);
  const marks = points.map((point) => pointMark(point, x(point.x), point.bounds.map(y), y(point.y), tell, open));
  return svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "group", "aria-label": `${yTitle} against ${xTitle}` },
    yAxis(scale, y, yTitle), xAxis(from, to, x, free, xTitle, xForm),
    svg("path", { class: "frontier", d: frontierPath(front, x, y) }),
    marks, labels(points.filter((point) => front.includes(point) || shownNames(point)), points, x, y));
}

function decades(values) {
  if (!values.length) return [0.1, 1];
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  return high > low ? [low, high] : [low / 10, high];
}

// Nothing else is at least as accurate at a lower cost.
function frontier(points) {
  const ordered = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  return ordered.filter((point) => point.y > best && ((best = point.y), true));
}

function frontierPath(front, x, y) {
  return front.map((point, i) => (i ? `H${x(point.x)}V${y(point.y)}` : `M${x(point.x)} ${y(point.y)}`)).join("");
}

function yAxis({ ticks, digits }, y, title) {
  return svg("g", null, ticks.map((tick) => svg("g", null,
    svg("line", { class: "grid", x1: PLOT.left, x2: PLOT.right, y1: y(tick), y2: y(tick) }),
    svg("text", { x: PLOT.left - 8, y: y(tick) + 4, "text-anchor": "end" }, number(tick, digits)))),
  svg("text", { class: "axis-title", x: PLOT.left + 6, y: PLOT.top + 10 }, title));
}

function xAxis(from, to, x, free, title, form) {
  const ticks = [];
  for (let tick = from; tick <= to * 1.01; tick *= 10) ticks.push(tick);
  const tickMark = (at, text) => svg("text", { x: at, y: PLOT.bottom + 20, "text-anchor": "middle" }, text);
  return svg("g", null, ticks.map((tick) => tickMark(x(tick), form(tick))), free && tickMark(PLOT.left + 34, free),
    svg("text", { class: "axis-title", x: PLOT.right, y: PLOT.bottom + 42, "text-anchor": "end" }, title));
}

function pointMark(point, x, bounds, y, tell, open) {
  const act = (event) => {
    if (event.key && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open(point);
  };
  const group = svg("g", { class: "point", tabindex: 0, role: "button", "aria-label": point.text,
    onclick: act, onkeydown: act, onfocus: () => tell(point), onmouseenter: () => tell(point) },
  svg("line", { class: "error", x1: x, x2: x, y1: bounds[0], y2: bounds[1] }), svg("circle", { class: "ring", cx: x, cy: y, r: 10 }), shape(SHAPES[point.family], x, y, 4.6));
  group.style.fill = point.family === "submitted" ? "none" : `var(--f-${point.family})`;
  group.querySelector(".error").style.stroke = `var(--f-${point.family})`;
  group.style.stroke = point.family === "submitted" ? "var(--f-submitted)" : "var(--surface)";
  return group;
}

// Names beside their points, on the side that is free; a name without room is left out, the point still tells it.
function labels(points, all, x, y) {
  const taken = all.map((point) => ({ left: x(point.x) - 6, right: x(point.x) + 6, top: y(point.y) - 6, bottom: y(point.y) + 6 }));
  const free = (box) => taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
  return points.map((point) => {
    const text = point.name.length > 40 ? `${point.name.slice(0, 39)}…` : point.name;
    const width = text.length * 6.4;
    const [cx, cy] = [x(point.x), y(point.y)];
    const sides = [[8, -8, "start"], [-8, -8, "end"], [9, 4, "start"], [-9, 4, "end"], [8, 17, "start"], [-8, 17, "end"]];
    for (const [dx, dy, anchor] of sides) {
      const left = anchor === "start" ? cx + dx : cx + dx - width;
      const box = { left, right: left + width, top: cy + dy - 11, bottom: cy + dy + 3 };
      if (box.right > PLOT.right + 16 || box.left < PLOT.left || !free(box)) continue;
      taken.push(box);
      return svg("text", { class: "point-label", x: cx + dx, y: cy + dy, "text-anchor": anchor }, text);
    }
    return null;
  });
}
