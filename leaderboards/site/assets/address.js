// The address behind #: a page, a table and a tab as a path; behind a question mark how it is filtered and sorted and
// which row is open. So every view can be linked to.

const CHOSEN = { q: "", lists: "", cut: "", cost: "ms", row: "" };

function linkTo(table, tab = "ranking") {
  return `#leaderboard/${encodeURIComponent(table.id)}/${tab}`;
}

function decodeSafely(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function readAddress() {
  const [path, ...given] = location.hash.slice(1).split("?");
  const [page, first, second] = path.split("/").map(decodeSafely);
  VIEW.page = PAGES.some((one) => one.key === page && (!one.when || one.when())) ? page : "leaderboard";
  VIEW.table = (VIEW.page === "leaderboard" && tableOf(first)) || VIEW.table || SITE.tables[0];
  if (VIEW.page === "leaderboard") VIEW.tab = VIEW.table && tabsOf(VIEW.table).some((tab) => tab.key === second) ? second : "ranking";
  VIEW.wanted = first;
  readChoices(new URLSearchParams(given.join("?")));
}

function readChoices(given) {
  for (const [name, usual] of Object.entries(CHOSEN)) VIEW[name] = given.get(name) || usual;
  VIEW.hidden = new Set(given.getAll("hide"));
  sorting.clear();
  for (const one of given.getAll("sort")) {
    const [id, key, way] = one.split("~");
    sorting.set(id, { key, down: way === "down" });
  }
}

function choices() {
  const given = new URLSearchParams();
  for (const [name, usual] of Object.entries(CHOSEN)) if (VIEW[name] !== usual) given.set(name, VIEW[name]);
  for (const family of VIEW.hidden) given.append("hide", family);
  for (const [id, { key, down }] of sorting) given.append("sort", `${id}~${key}~${down ? "down" : "up"}`);
  const text = given.toString();
  return text && `?${text}`;
}

// What is shown, without a new entry in the browser's history.
function remember() {
  const rest = VIEW.wanted ? `/${encodeURIComponent(VIEW.wanted)}` : "";
  const path = VIEW.page === "leaderboard" ? VIEW.table && linkTo(VIEW.table, VIEW.tab) : `#${VIEW.page}${rest}`;
  if (path) keep("replaceState", path + choices());
}

function keep(how, address) {
  try {
    history[how](null, "", address);
  } catch {
    // a browser that allows so many changes in a time: the view is right, its address is late
  }
}

// Another filter, cut or cost of the same tab.
function choosePart(name, value) {
  VIEW[name] = value;
  remember();
  drawPanel();
}

// Another table or tab, with the filters and the order that were chosen.
function goTo(table, tab = VIEW.tab) {
  const there = tabsOf(table).some((one) => one.key === tab) ? tab : "ranking";
  keep("pushState", linkTo(table, there) + choices());
  draw();
}

// A link was followed, or the browser went back: begin at the top, with the keyboard, too.
function arrive() {
  const before = [VIEW.page, VIEW.table, VIEW.tab];
  draw();
  const main = document.getElementById("main");
  if (showWanted(main) || [VIEW.page, VIEW.table, VIEW.tab].every((one, i) => one === before[i])) return;
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

// The card that the address names, if any.
function showWanted(main) {
  const wanted = main.querySelector("[data-wanted]");
  if (!wanted) return false;
  wanted.focus({ preventScroll: true });
  wanted.scrollIntoView();
  return true;
}
