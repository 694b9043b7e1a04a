// What is shown: one page, or one tab of one table.

const SITE = JSON.parse(document.getElementById("data").textContent);
const VIEW = { page: "leaderboard", table: null, tab: "ranking" }; // and what CHOSEN has
const THEMES = ["auto", "light", "dark"];

const TABS = [
  { key: "ranking", label: "Ranking", draw: rankingPanel, filtered: true },
  { key: "metrics", label: "All metrics", draw: metricsPanel, filtered: true },
  { key: "slices", label: "Slices", draw: slicesPanel, filtered: true, when: (table) => table.slices.length > 0 },
  { key: "chance", label: "Warm, cold, chance", draw: chancePanel, filtered: true, when: (table) => Object.keys(table.settings).length > 0 },
  { key: "uncertainty", label: "Uncertainty", draw: uncertaintyPanel, filtered: true },
  { key: "pareto", label: "Accuracy and cost", draw: paretoPanel, filtered: true },
  { key: "cost", label: "Cost", draw: costPanel, filtered: true },
  { key: "pairs", label: "All pairs", draw: pairsPanel, filtered: true, when: (table) => table.rows.length > 1 },
  { key: "audits", label: "Audits", draw: auditsPanel, when: (table) => table.current },
  { key: "files", label: "Files", draw: filesPanel }];

const PAGES = [
  { key: "leaderboard", label: "Leaderboard" }, { key: "methods", label: "Methods" }, { key: "datasets", label: "Datasets" },
  { key: "protocols", label: "Protocols" },
  { key: "ledger", label: "Published figures", when: () => SITE.ledger }, { key: "across", label: "Across datasets", when: () => SITE.across },
  { key: "reading", label: "How to read" }];

function tableOf(id) {
  return SITE.tables.find((table) => table.id === id);
}

function tabsOf(table) {
  return TABS.filter((tab) => !tab.when || tab.when(table));
}

function draw() {
  readAddress();
  show(document.getElementById("pages"), PAGES.filter((page) => !page.when || page.when()).map((page) => el("li", null,
    el("a", { href: `#${page.key}`, "aria-current": page.key === VIEW.page ? "page" : null }, page.label))));
  const main = document.getElementById("main");
  if (VIEW.page === "methods") show(main, methodsPage(VIEW.wanted));
  else if (VIEW.page === "datasets") show(main, datasetsPage());
  else if (VIEW.page === "protocols") show(main, protocolsPage());
  else if (VIEW.page === "ledger" || VIEW.page === "across") show(main, documentPage(SITE[VIEW.page], VIEW.page));
  else if (VIEW.page === "reading") show(main, document.getElementById("reading").content.cloneNode(true));
  else drawLeaderboard(main);
  if (VIEW.page !== "leaderboard") document.title = `${PAGES.find((page) => page.key === VIEW.page).label}: GenRec Bench`;
  drawDetail();
}

function drawLeaderboard(main) {
  const table = VIEW.table;
  if (!table) {
    show(main, el("h1", null, "Leaderboard"), el("p", null, "There are no finished runs."));
    return;
  }
  document.title = `${table.dataset}, ${table.protocol.name}: GenRec Bench`;
  const items = tabsOf(table).map((tab) => ({ ...tab, id: `tab-${tab.key}` }));
  const choose = (key) => goTo(table, key);
  show(main, pickers(table), opening(table),
    tabList({ label: "Views of this table", look: "tabs", items, chosen: VIEW.tab, choose, panel: "panel" }),
    items.find((tab) => tab.key === VIEW.tab).filtered && filterBar(table, el("span", { class: "count", id: "count", role: "status" })),
    el("div", { id: "panel", role: "tabpanel", "aria-labelledby": `tab-${VIEW.tab}` }));
  drawPanel();
}

function drawPanel() {
  const table = VIEW.table;
  const tab = TABS.find((one) => one.key === VIEW.tab);
  const rows = shownRows(table);
  const count = document.getElementById("count");
  if (count) count.textContent = rows.length === table.rows.length ? `${rows.length} methods` : `${rows.length} of ${table.rows.length} methods`;
  show(document.getElementById("panel"), tab.draw(table, rows));
}

function drawTheme() {
  let theme = "auto";
  try {
    theme = localStorage.getItem("theme") || "auto";
  } catch {
    // a browser that keeps nothing for files
  }
  const button = document.getElementById("theme");
  const set = (name) => {
    theme = name;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  set(THEMES.includes(theme) ? theme : "auto");
  button.addEventListener("click", () => {
    set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // then for this visit only
    }
  });
}

drawTheme();
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address is not one of a page
  document.getElementById("main").focus();
});
document.getElementById("detail").addEventListener("close", () => {
  if (!VIEW.row) return;
  VIEW.row = "";
  remember();
});
window.addEventListener("hashchange", arrive);
draw();
showWanted(document.getElementById("main"));
