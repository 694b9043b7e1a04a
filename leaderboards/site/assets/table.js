// A table that sorts by its headers. A column: title, value(row) to sort by, cell(row) to show, and where wanted: first
// (sorted by it until told otherwise), num, low (left out on a phone), group (a heading above), hint, head (a node in
// place of the title), key (its name in the address, where title and group do not tell it).

const sorting = new Map(); // what was chosen: table -> column and direction

function compareValues(a, b) {
  return typeof a === "string" && typeof b === "string" ? a.localeCompare(b) : a - b;
}

function sorted(rows, column, down) {
  const empty = (value) => value === null || value === undefined || Number.isNaN(value);
  const keyed = rows.map((row, place) => ({ row, place, value: column.value(row) }));
  keyed.sort((a, b) => {
    if (empty(a.value) || empty(b.value)) return empty(a.value) - empty(b.value) || a.place - b.place;
    return (down ? -1 : 1) * compareValues(a.value, b.value) || a.place - b.place;
  });
  return keyed.map((one) => one.row);
}

function keyOf(column) {
  return column.key || [column.group, column.title].filter(Boolean).join(" ");
}

function dataTable({ id, caption, columns, rows, rowClass, look }) {
  const body = el("tbody");
  const heads = columns.map((column) => headCell(column, () => turn(column)));
  const usual = columns[0].first ? { key: keyOf(columns[0]), down: false } : null;
  const draw = () => {
    const state = sorting.get(id) || usual;
    const column = state && columns.find((one) => one.value && keyOf(one) === state.key);
    heads.forEach((head, place) => markSorted(head, columns[place] === column ? state : null));
    show(body, (column ? sorted(rows, column, state.down) : rows).map((row) => bodyRow(row, columns, rowClass)));
  };
  const turn = (column) => {
    const state = sorting.get(id) || usual;
    const key = keyOf(column);
    sorting.set(id, { key, down: state && state.key === key ? !state.down : Boolean(column.num) });
    remember();
    draw();
  };
  draw();
  const table = el("table", { class: look }, el("caption", null, caption), el("thead", null, groupRow(columns), el("tr", null, heads)), body);
  return [el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, table), helpOf(columns)];
}

// The hints of the columns, where no pointer can ask for them one by one.
function helpOf(columns) {
  const told = new Map(columns.filter((column) => column.hint).map((column) => [column.title, column.hint]));
  if (!told.size) return null;
  return el("details", { class: "help" }, el("summary", null, "What the columns say"), columnsOf([...told]));
}

function groupRow(columns) {
  if (!columns.some((column) => column.group)) return null;
  const cells = [];
  for (const column of columns) {
    const last = cells.at(-1);
    if (last && last.group && last.group === column.group) last.width += 1;
    else cells.push({ group: column.group, width: 1, low: column.low });
  }
  return el("tr", null, cells.map((cell) => (cell.group
    ? el("th", { class: classes("group", cell.low && "low"), colspan: cell.width, scope: "colgroup" }, named(cell.group))
    : el("td", { class: classes(cell.low && "low"), colspan: cell.width }))));
}

function markSorted(head, state) {
  if (!head.querySelector("button")) return;
  head.setAttribute("aria-sort", state ? (state.down ? "descending" : "ascending") : "none");
  head.querySelector(".arrow").textContent = state && !state.down ? "▴" : "▾";
}

function headCell(column, turn) {
  const look = classes(column.num && "num", column.low && "low", column.stick && "stick");
  const title = column.head || column.title;
  if (!column.value) return el("th", { scope: "col", class: look }, el("span", { title: column.hint }, title));
  return el("th", { scope: "col", class: look, "aria-sort": "none" },
    el("button", { type: "button", title: column.hint, onclick: turn },
      title, el("span", { class: "arrow", "aria-hidden": "true" }, "▾")));
}

function bodyRow(row, columns, rowClass) {
  return el("tr", { class: rowClass && rowClass(row) }, columns.map((column) => el(
    column.stick ? "th" : "td",
    { class: classes(column.num && "num", column.low && "low", column.stick && "stick", column.look), scope: column.stick && "row" },
    column.cell(row))));
}

function classes(...names) {
  return names.filter(Boolean).join(" ") || null;
}

// The largest and the second largest text of every column, as the paper tables style them.
function bestTwo(rows, value) {
  const texts = [...new Set(rows.map((row) => number(value(row))).filter((text) => text !== DASH))];
  texts.sort((a, b) => Number(b.replace(MINUS, "-")) - Number(a.replace(MINUS, "-")));
  return (row) => ({ [texts[1]]: "second", [texts[0]]: "best" })[number(value(row))] || null;
}
