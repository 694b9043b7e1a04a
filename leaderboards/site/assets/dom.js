// Elements and their parts. Data reaches the page through here only, always as text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    const aria = name.startsWith("aria-"); // where "false" is a value like any other
    if (value === null || value === undefined || (value === false && !aria)) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true && !aria ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function el(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// A string of unknown origin: its writing direction stays its own.
function named(text) {
  return el("bdi", null, String(text));
}

// The same for a name of a method, which may go on in a new line after its marks.
function methodName(name) {
  return el("bdi", null, String(name).split(/(?<=[:@_-])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part])));
}

function show(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return node;
}

function columnsOf(pairs) {
  return el("dl", { class: "pairs" }, pairs.map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

// Buttons of which one is chosen; arrows move, Home and End jump.
function tabList(options) {
  const { label, items, chosen, choose, look, panel } = options;
  const buttons = items.map((item) => el("button", {
    type: "button", role: "tab", id: item.id, "aria-controls": panel, "data-key": item.key,
    "aria-selected": item.key === chosen, tabindex: item.key === chosen ? 0 : -1, onclick: () => choose(item.key),
  }, named(item.label)));
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const move = (event) => {
    const here = buttons.indexOf(document.activeElement);
    let next = null;
    if (event.key in steps) next = (here + steps[event.key] + buttons.length) % buttons.length;
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = buttons.length - 1;
    if (next === null || here < 0) return;
    event.preventDefault();
    focusAgain(label, items[next].key, () => choose(items[next].key));
  };
  return el("div", { class: look, role: "tablist", "aria-label": label, onkeydown: move }, buttons);
}

// Choosing draws the page anew; the keyboard stays where it was.
function focusAgain(label, key, act) {
  act();
  const list = [...document.querySelectorAll('[role="tablist"]')].find((one) => one.getAttribute("aria-label") === label);
  const button = list && [...list.querySelectorAll('[role="tab"]')].find((one) => one.dataset.key === key);
  if (button) button.focus();
}

function chooser(label, items, chosen, choose) {
  const change = (event) => {
    choose(event.target.value);
    const again = [...document.querySelectorAll("select")].find((one) => one.dataset.label === label);
    if (again) again.focus();
  };
  const select = el("select", { "data-label": label, onchange: change },
    items.map((item) => el("option", { value: item.key, selected: item.key === chosen }, item.label)));
  return el("label", { class: "picker" }, el("span", { class: "label" }, label), select);
}

// Text to take away, with a button that copies it; where a browser does not allow that, it is marked to be copied by hand.
function copied(text, label) {
  const block = el("pre", { class: "mono", tabindex: 0, "aria-label": label }, text);
  const button = el("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block);
      button.textContent = "Marked, copy it with your keys";
    }
  });
  return el("div", { class: "copied" }, button, block);
}
