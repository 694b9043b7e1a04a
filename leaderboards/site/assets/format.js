// Numbers as text; a dash where there is none.

const DASH = "–";
const MINUS = "−";

function known(value) {
  return value !== null && value !== undefined && Number.isFinite(value);
}

function number(value, digits = 4) {
  return known(value) ? value.toFixed(digits).replace("-", MINUS) : DASH;
}

function signed(value, digits = 4) {
  return known(value) ? (value < 0 ? MINUS : "+") + Math.abs(value).toFixed(digits) : DASH;
}

function interval(low, high, form = number) {
  return known(low) ? `[${form(low)}, ${form(high)}]` : DASH;
}

function pValue(p) {
  return !known(p) ? DASH : p < 0.0001 ? "<0.0001" : p.toFixed(4);
}

function whole(value) {
  return known(value) ? Math.round(value).toLocaleString("en-US") : DASH;
}

function brief(value) {
  if (!known(value)) return DASH;
  if (value < 1000) return String(Math.round(value));
  const units = [[1e9, " G"], [1e6, " M"], [1e3, " k"]];
  const [size, unit] = units.find(([least]) => value >= least);
  return (value / size).toPrecision(3) + unit;
}

function seconds(value) {
  if (!known(value)) return DASH;
  if (value > 0 && value < 0.1) return "<0.1 s";
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 5400) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

function milliseconds(value) {
  if (!known(value)) return DASH;
  return value < 0.001 ? "<0.001" : value < 0.1 ? value.toFixed(3) : value < 10 ? value.toFixed(2) : value.toFixed(0);
}

function bytes(value) {
  if (!known(value)) return DASH;
  const [size, unit, digits] = value < 1e6 ? [1e3, "kB", 0] : value < 1e9 ? [1e6, "MB", 1] : [1e9, "GB", 2];
  return `${(value / size).toFixed(digits)} ${unit}`;
}

function users(n) {
  return n === 1 ? "1 user" : `${whole(n)} users`;
}

// Why a training ended, in words.
function ending(reason) {
  return { patience: "no better validation score", limit: "all epochs done", cap: "time cap" }[reason] || reason;
}

function endings(reasons) {
  return reasons.map(ending).join(", ");
}

// What a metric measures; null where its name says it.
function meaning(metric) {
  const [, kind, k] = /^(\w+)@(\d+)/.exec(metric) || [];
  const text = {
    recall: "share of a user's targets among the first {k} items, mean over users",
    ndcg: "1 / log2(place + 1) of the targets among the first {k} items, as a share of the most possible, mean over users",
    mrr: "1 / place of the first target among the first {k} items, mean over users",
    coverage: "share of all items that stand in the first {k} places of at least one user",
    item_entropy: "entropy in nats of the items in the first {k} places of all users; higher is more varied",
    category_entropy: "entropy in nats of their categories; higher is more varied" }[kind];
  return text ? text.replace("{k}", k) : null;
}

// The text of a cell as a number, for sorting; null where it does not begin with one.
function leading(text) {
  const found = /^[[<]?\s*([+-]?[\d,]*\.?\d+)/.exec(text.replace(MINUS, "-"));
  return found ? Number(found[1].replaceAll(",", "")) : null;
}
