// A table that sorts by its headers. A column: title, value(row) to sort by, cell(row) to show, and where
// wanted: first (sorted by it until told otherwise), num, low (left out on a phone), group (a heading above), hint, head (a node in place of the title).

const sorting = new Map();

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

function dataTable({ id, caption, columns, rows, rowClass, look }) {
  if (!sorting.has(id) && columns[0].first) sorting.set(id, { place: 0, down: false });
  const body = el("tbody");
  const heads = columns.map((column, place) => headCell(column, () => turn(place)));
  const draw = () => {
    const state = sorting.get(id);
    heads.forEach((head, place) => markSorted(head, state && state.place === place ? state : null));
    const column = state && columns[state.place];
    const ordered = column && column.value ? sorted(rows, column, state.down) : rows;
    show(body, ordered.map((row) => bodyRow(row, columns, rowClass)));
  };
  const turn = (place) => {
    const state = sorting.get(id);
    const first = Boolean(columns[place].num);
    sorting.set(id, { place, down: state && state.place === place ? !state.down : first });
    draw();
  };
  draw();
  const table = el("table", { id, class: look }, caption && el("caption", null, caption),
    el("thead", null, groupRow(columns), el("tr", null, heads)), body);
  return el("div", { class: "scroll", role: "region", "aria-label": caption || "table", tabindex: 0 }, table);
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
