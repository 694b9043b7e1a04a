// Cards of methods and datasets, and pages made of the suite's own documents.

function methodsPage(wanted) {
  const groups = SITE.families.filter((family) => SITE.methods.some((card) => card.family === family.key));
  return el("div", null, el("h1", null, "Methods"),
    el("p", { class: "lede" }, "What each method is here: what was kept from its paper, what was changed and what it cost. Size and time are those of the runs in these tables."),
    groups.map((family) => [el("h2", null, family.title), el("p", { class: "small" }, family.about),
      el("div", { class: "cards" }, SITE.methods.filter((card) => card.family === family.key).map((card) => methodCard(card, wanted)))]));
}

function methodCard(card, wanted) {
  const list = (title, lines) => lines.length > 0 && [el("h4", null, title), el("ul", null, lines.map((line) => el("li", null, line)))];
  const used = Object.entries(card.variants || {}).filter(([preset]) => card.places.some((place) => place.method.endsWith(`@${preset}`)));
  return el("article", { class: "card", id: `card-${card.key}`, tabindex: -1, "data-wanted": card.key === wanted },
    el("h3", null, named(card.title)), card.paper && el("p", { class: "cite" }, card.paper), el("p", null, card.about),
    list(card.paper ? "As in the paper" : "How it is made", card.faithful), list("Changed here", card.changed),
    used.length > 0 && [el("h4", null, "Variants in these tables"), el("ul", null, used.map(([preset, about]) => el("li", null, el("span", { class: "mono" }, `@${preset}`), ` ${about}`)))],
    placesOf(card), citation(card));
}

function citation(card) {
  return card.bibtex && el("details", null, el("summary", null, "Cite, BibTeX"), copied(card.bibtex, `BibTeX of ${card.title || card.name}`));
}

function placesOf(card) {
  const columns = ["method", "table", "place", "parameters", "training"].map((title, i) => el("th", { scope: "col", class: i > 1 && "num" }, el("span", null, title)));
  const line = (place) => {
    const table = tableOf(place.table);
    return el("tr", null, el("td", null, named(place.method)), el("td", null, el("a", { href: linkTo(table) }, `${table.dataset}, ${table.protocol.name}`)),
      el("td", { class: "num" }, `${place.rank} of ${place.of}`), el("td", { class: "num" }, brief(place.parameters)), el("td", { class: "num" }, place.train === null ? "none" : seconds(place.train)));
  };
  return el("details", null, el("summary", null, `In ${card.places.length} ${card.places.length === 1 ? "row" : "rows"} of these tables`),
    el("div", { class: "document" }, el("table", null, el("caption", null, "Rows of this method"), el("thead", null, el("tr", null, columns)), el("tbody", null, card.places.map(line)))));
}

function datasetsPage() {
  return el("div", null, el("h1", null, "Datasets"),
    el("p", { class: "lede" }, "Names carry the version. Counts were taken from the published files and are asserted when a dataset is loaded."),
    el("div", { class: "cards" }, SITE.datasets.map(datasetCard)));
}

function datasetCard(card) {
  const entry = card.entry || {};
  const counts = [["users", entry.users], ["items", entry.items], ["interactions", entry.interactions]].filter(([, n]) => known(n)).map(([name, n]) => [name, whole(n)]);
  const density = known(entry.users) ? [["per user", (entry.interactions / entry.users).toFixed(1)]] : [];
  const asked = card.asked.map((one) => {
    const table = tableOf(one.table);
    const facts = Object.entries(one.facts).filter(([, value]) => typeof value === "number").map(([name, value]) => [name.replaceAll("_", " "), whole(value)]);
    return el("details", null, el("summary", null, el("a", { href: linkTo(table) }, tableTitle(table)), `, ${one.methods} methods`), columnsOf(facts));
  });
  return el("article", { class: "card" }, el("h2", null, named(card.name)),
    el("p", { class: "cite" }, entry.source || "Not one of the named datasets; what is known stands in its records."),
    columnsOf([...counts, ...density, entry.alias && ["also called", entry.alias], entry.extra_text && ["extra text", `${entry.extra_text}, written by a model`],
      ...card.hashes.map((hash) => ["hash", el("span", { class: "mono" }, hash)])].filter(Boolean)),
    el("h3", null, "Asked under"), asked, citation(card));
}

function protocolsPage() {
  const card = (protocol) => {
    const tables = SITE.tables.filter((table) => table.current && table.protocol.name === protocol.name);
    const links = tables.map((table) => el("li", null, el("a", { href: linkTo(table) }, named(table.dataset)), `, ${sizeOf(table)}`));
    return el("article", { class: "card" }, el("h2", null, `${protocol.name}, version ${protocol.version}`),
      el("p", { class: "cite" }, "hash of these rules ", el("span", { class: "mono" }, protocol.hash)),
      columnsOf(flat(protocol.rules).map(([name, value]) => [name.replaceAll("_", " "), value])), links.length > 0 && [el("h3", null, "Tables"), el("ul", null, links)]);
  };
  return el("div", null, el("h1", null, "Protocols"),
    el("p", { class: "lede" }, "How every method is asked. Any change of a value is a new version, and results of two hashes never share a table."),
    el("div", { class: "cards wide" }, SITE.protocols.map(card)));
}

function documentPage(found, name) {
  const headings = found.blocks.map((block, place) => ({ ...block, place })).filter((block) => block.kind === "heading" && block.level === 2);
  const [title, ...rest] = blockNodes(found.blocks, name, 0);
  const contents = headings.length > 3 && el("ul", { class: "contents", "aria-label": "Contents" },
    headings.map((one) => el("li", null, el("a", { href: `#${name}/${one.place}` }, named(one.text)))));
  return el("article", { class: "document" }, title, contents, rest, el("h2", null, "Files"), fileList(found.files));
}

// Headings are moved ``down`` by so many levels; tables are called by the heading above them.
function blockNodes(blocks, id, down) {
  let above = "";
  return blocks.map((block, place) => {
    if (block.kind === "heading") {
      above = block.text;
      return el(`h${Math.min(block.level + down, 6)}`, { tabindex: -1, "data-wanted": VIEW.wanted === String(place) }, named(block.text));
    }
    if (block.kind === "text") return el("p", null, named(block.text));
    if (block.kind === "picture") return el("p", { class: "figure" }, el("img", { src: encodeURI(block.href), alt: `${block.text}: a picture of the numbers in the tables`, loading: "lazy" }));
    if (block.kind === "list") return el("ul", null, block.items.map((item) => el("li", null, named(item))));
    if (block.kind === "notes") return el("ol", { class: "small", start: block.first }, block.items.map((item) => el("li", null, named(item))));
    return documentTable(block, `${id} ${place}`, above);
  });
}

function documentTable(block, id, caption) {
  const columns = block.header.map((title, i) => ({ title: named(title), key: String(i + 1), num: block.numeric[i], value: (row) => (block.numeric[i] ? leading(row[i]) : row[i]), cell: (row) => named(row[i]) }));
  return dataTable({ id, caption, columns, rows: block.rows });
}

function auditsPanel(table) {
  const missing = SITE.questions.filter((kind) => !table.audits.some((audit) => audit.kind === kind));
  return el("div", { class: "document" },
    missing.length > 0 && el("p", { class: "notice" }, `Not asked of this table so far: ${missing.join(", ")}.`),
    table.audits.map((audit) => [el("h2", null, `Audit: ${audit.kind}`), blockNodes(audit.blocks.slice(1), `audit ${table.id} ${audit.kind}`, 1)]));
}
