// The other tabs of a table: all metrics, slices, chance, uncertainty, cost, the accuracy-cost picture, pairs, files.

function metricsPanel(table, rows) {
  const view = table.views.find((one) => one.name === VIEW.lists) || table.views[0];
  const metric = (name) => {
    const value = (row) => row.metrics[name];
    const best = /^(recall|ndcg|mrr)/.test(name) ? bestTwo(table.rows, value) : () => null;
    return { title: name.split("/")[0].replace("_", " "), num: true, hint: meaning(name), value, cell: (row) => el("span", { class: best(row) }, number(value(row))) };
  };
  const columns = [rankColumn(), methodColumn(table), ...view.metrics.map(metric)];
  const items = table.views.map((one) => ({ key: one.name, label: one.label }));
  return [items.length > 1 && chooser("Lists of", items, view.name, (name) => choosePart("lists", name)),
    dataTable({ id: "metrics", columns, rows, rowClass: rowLook, caption: `All metrics, ${view.label}` }),
    el("div", { class: "under" }, el("p", null, `Largest value bold, second largest underlined, by the four decimals shown: that says nothing of significance. Intervals and tests are made for ${table.primary}, in the tab Uncertainty.`),
      view.name === "seen-dropped" && el("p", null, "The same lists with the user's earlier items removed and the gaps closed."))];
}

function slicesPanel(table, rows) {
  const cut = table.slices.find((one) => one.name === VIEW.cut) || table.slices[0];
  if (!cut) return el("p", null, "This protocol has no slices.");
  const part = (one, place) => {
    const cell = (row) => row.cells[cut.name][place];
    const top = rounded(Math.max(...table.rows.map((row) => cell(row)[2])));
    const text = (row) => `${table.primary} ${number(cell(row)[0])} ${interval(cell(row)[1], cell(row)[2])}, ${table.recall} ${number(cell(row)[3])}`;
    const title = users(one.users);
    return { title, group: one.label, head: [title, el("span", { class: "scale" }, `bars 0 to ${number(top, 3)}`)], value: (row) => cell(row)[0],
      cell: (row) => el("span", { class: "cell-bar", title: text(row) }, el("span", null, number(cell(row)[0])), bar(...cell(row).slice(0, 3), top)) };
  };
  const columns = [methodColumn(table), ...cut.parts.map(part)];
  return [chooser("Cut by", table.slices.map((one) => ({ key: one.name, label: one.name })), cut.name, (name) => choosePart("cut", name)),
    dataTable({ id: `slices ${cut.name}`, columns, rows, rowClass: rowLook, caption: `${table.primary} by ${cut.name}` }),
    el("div", { class: "under" }, el("p", null, `${table.primary} and its 95 % bootstrap interval over users. Every column has its own scale: bars compare methods, not columns. Pointing at a bar tells its interval and ${table.recall}; the files have all of them.`))];
}

function chancePanel(table, rows) {
  const names = Object.keys(table.settings);
  const columns = [rankColumn(), methodColumn(table), ...names.flatMap((name) => {
    const asked = table.settings[name];
    const one = (row) => row.chance[name];
    const all = table.rows.map((row) => one(row).interval).flat();
    const scale = [Math.min(0, ...all), Math.max(0, ...all)];
    const group = `${name}: ${users(asked.users)}, chance ${number(asked.chance)}`;
    const verdict = { "above chance": "better", "below chance": "worse" };
    return [
      { title: table.recall, group, num: true, value: (row) => one(row).recall, cell: (row) => number(one(row).recall) },
      { title: "minus chance, 95 %", group, low: true, head: axisHead("minus chance, 95 %", scale), value: (row) => one(row).difference, cell: (row) => whisker({ value: one(row).difference,
        low: one(row).interval[0], high: one(row).interval[1], scale, verdict: verdict[one(row).verdict] || "", lines: [{ look: "zero", at: 0, title: "chance" }],
        text: `${signed(one(row).difference)} ${interval(...one(row).interval, signed)}` }) },
      { title: "against it", group, value: (row) => one(row).verdict, cell: (row) => chanceCell(verdict[one(row).verdict], one(row).verdict) }];
  })];
  return [dataTable({ id: "chance", look: "compact", columns, rows, rowClass: rowLook, caption: `${table.recall} against a random list` }),
    el("div", { class: "under" }, el("p", null, "Each setting ranks its own candidates anew. Intervals: pigeonhole bootstrap over users and target items, not adjusted for the number of methods and settings."))];
}

function chanceCell(verdict, text) {
  const look = LOOKS[verdict || ""];
  return el("span", { class: `verdict ${look}` }, el("span", { class: `mark ${look}`, "aria-hidden": "true" }, SYMBOLS[look]), ` ${text ? text.replace(" chance", "") : "not told apart"}`);
}

function uncertaintyPanel(table, rows) {
  const versus = (row) => row.versus || {};
  const bounds = table.rows.flatMap((row) => (row.versus ? row.versus.interval : []));
  const scale = [Math.min(0, ...bounds), Math.max(0, ...bounds)];
  const many = table.seeds.length > 1;
  const seeds = (row) => Object.values(versus(row).per_seed || {});
  const columns = [rankColumn(), methodColumn(table),
    { title: table.primary, num: true, value: (row) => row.metrics[table.primary], cell: (row) => number(row.metrics[table.primary]) },
    { title: "over users, 95 %", num: true, low: true, hint: "bootstrap interval of the mean over users", value: (row) => row.interval[0], cell: (row) => interval(...row.interval) },
    many && { title: "sd over seeds", num: true, hint: "standard deviation of the mean over repeated trainings", value: (row) => row.spread[table.primary], cell: (row) => number(row.spread[table.primary]) },
    ...(table.has_reference ? [
      { title: `difference to ${table.reference}`, head: axisHead(`difference to ${table.reference}`, scale), value: (row) => versus(row).difference, cell: (row) => row.versus && whisker({ value: row.versus.difference,
        low: row.versus.interval[0], high: row.versus.interval[1], scale, verdict: row.verdict, lines: [{ look: "zero", at: 0, title: table.reference }],
        seeds: many ? seeds(row) : [], text: `${signed(row.versus.difference)} ${interval(...row.versus.interval, signed)}` }) },
      { title: "difference, 95 %", num: true, value: (row) => versus(row).difference, cell: (row) => (row.versus ? `${signed(row.versus.difference)} ${interval(...row.versus.interval, signed)}` : "reference") },
      many && { title: "in each seed", low: true, num: true, value: (row) => Math.min(...seeds(row)), cell: (row) => seeds(row).map((one) => signed(one)).join(" ") || DASH },
      many && { title: "over seeds, 95 % t", low: true, num: true, hint: "Student's t interval of the difference over seeds", value: (row) => (versus(row).seed_interval || [null])[0], cell: (row) => (versus(row).seed_interval ? interval(...row.versus.seed_interval, signed) : DASH) },
      { title: "Holm p", num: true, hint: "of the paired sign-flip test, adjusted for all methods of the table", value: (row) => versus(row).p_holm, cell: (row) => pValue(versus(row).p_holm) },
      { title: "verdict", value: (row) => row.verdict, cell: verdictCell },
      { title: "relative", num: true, low: true, hint: "difference as a share of the reference's value", value: (row) => versus(row).relative, cell: (row) => (known(versus(row).relative) ? `${signed(row.versus.relative * 100, 1)} %` : DASH) },
      { title: "d_z", num: true, low: true, hint: "Cohen's effect size of the paired differences", value: (row) => versus(row).effect_size, cell: (row) => signed(versus(row).effect_size, 3) },
      { title: "win / tie / loss", num: true, low: true, hint: "users with a higher, the same and a lower value than under the reference", value: (row) => versus(row).wins, cell: (row) => (row.versus ? `${whole(row.versus.wins)} / ${whole(row.versus.ties)} / ${whole(row.versus.losses)}` : DASH) },
      { title: "detectable", num: true, low: true, hint: "smallest difference found with 80 % power at alpha .05, one test", value: (row) => versus(row).minimum_detectable, cell: (row) => number(versus(row).minimum_detectable) },
    ] : [])].filter(Boolean);
  const seedNote = many ? "Small ticks above a bar are single seeds." : "One trained model per method: nothing here tells how far the numbers move when training is repeated.";
  return [dataTable({ id: "uncertainty", columns, rows, rowClass: rowLook, caption: `How sure ${table.primary} is: over users${many ? ", over seeds" : ""} and against ${table.reference}` }),
    el("div", { class: "under" }, el("p", null, `Bars are 95 % paired bootstrap intervals over users. ${table.trained ? seedNote : "Nothing in this table is trained."}`))];
}

const RULES = { scores: "all scored", raw: "beam search", renorm: "beam, renormalised", exact: "all, exactly" };

function costPanel(table, rows) {
  const spend = (row) => row.cost.spend;
  const amount = (title, name, hint) => ({ title, num: true, low: true, hint, value: (row) => spend(row)[name], cell: (row) => brief(spend(row)[name]) });
  const memory = (row) => Math.max(0, ...Object.values(row.cost.memory));
  const columns = [rankColumn(), methodColumn(table),
    { title: "training", num: true, value: (row) => (row.cost.trained ? row.cost.train : 0), cell: (row) => (row.cost.trained ? seconds(row.cost.train) : "none") },
    { title: "counting, fitting", num: true, low: true, hint: "the training stage of methods without training", value: (row) => (row.cost.trained ? null : row.cost.train), cell: (row) => (row.cost.trained ? DASH : seconds(row.cost.train)) },
    { title: "decoding", num: true, value: (row) => row.cost.decode, cell: (row) => seconds(row.cost.decode) },
    { title: "ms / user", num: true, hint: "decoding divided by the users asked", value: (row) => row.cost.ms, cell: (row) => milliseconds(row.cost.ms) },
    { title: "parameters", num: true, value: (row) => row.cost.parameters, cell: (row) => brief(row.cost.parameters) },
    { title: "peak memory", num: true, low: true, value: memory, cell: (row) => bytes(memory(row)) },
    { title: "lists by", low: true, look: "said", hint: "all scored: every candidate in one pass; beam search: items generated token by token; renormalised: over the tokens that continue to an item", value: (row) => RULES[spend(row).rule] || "", cell: (row) => RULES[spend(row).rule] || spend(row).rule || DASH },
    { title: "beam", num: true, low: true, hint: "partial answers kept at each step of the search", value: (row) => spend(row).beam_size, cell: (row) => spend(row).beam_size || DASH },
    amount("items scored", "items_scored", "per user"), amount("forward passes", "forward_passes", "of the network per user"), amount("decoder tokens", "decoder_tokens", "that the decoder read, per user"),
    { title: "training ended by", low: true, look: "said", value: (row) => endings(row.cost.stopped_by), cell: (row) => endings(row.cost.stopped_by) || DASH }];
  return [dataTable({ id: "cost", columns, rows, rowClass: rowLook, caption: "What each method took" }),
    el("div", { class: "under" }, el("p", null, "Wall time, mean over seeds; items, passes and tokens per user. Machines were often shared: see a row's provenance."))];
}

const COSTS = [
  { key: "ms", label: "decoding, ms per user", value: (row) => row.cost.ms, form: (value) => `${value}` },
  { key: "train", label: "training time", value: (row) => (row.cost.trained ? row.cost.train : 0), form: seconds },
  { key: "parameters", label: "parameters", value: (row) => row.cost.parameters, form: brief }];

function paretoPanel(table, rows) {
  const cost = COSTS.find((one) => one.key === VIEW.cost) || COSTS[0];
  const told = el("p", { class: "told", "aria-live": "polite" }, "Point at a method or step through them with the Tab key; Enter opens its provenance.");
  const points = rows.filter((row) => known(cost.value(row))).map((row) => {
    const x = cost.value(row);
    const y = row.metrics[table.primary];
    const shown = cost.key === "ms" ? `${milliseconds(x)} ms per user` : `${cost.label} ${x ? cost.form(x) : "none"}`;
    return { x, y, bounds: row.interval, row, family: row.family, name: row.method, text: `${row.method}: ${table.primary} ${number(y)} ${interval(...row.interval)}, ${shown}` };
  });
  const families = SITE.families.filter((family) => points.some((point) => point.family === family.key));
  const leaders = new Set(families.map((family) => Math.min(...points.filter((point) => point.family === family.key).map((point) => point.row.rank))));
  const picture = points.length ? scatter({ points, named: (point) => point.row.reference || leaders.has(point.row.rank), xTitle: cost.label, yTitle: table.primary, xForm: cost.form,
    tell: (point) => show(told, named(point.text)), open: (point) => openDetail(table, point.row) }) : el("p", null, "No method is shown.");
  return [chooser("Cost", COSTS, cost.key, (key) => choosePart("cost", key)),
    el("div", { class: "chart" }, picture, told),
    el("div", { class: "legend" }, families.map(familyMark), el("span", null, "– – nothing is as accurate at a lower cost")),
    el("div", { class: "under" }, el("p", null, `Thin lines: 95 % bootstrap intervals of ${table.primary} over users. Times are wall times on machines that were often shared. The numbers stand in the tab Cost.`))];
}

function familyMark(family) {
  const mark = svg("svg", { viewBox: "0 0 14 14", width: 12, height: 12, "aria-hidden": "true" }, shape(SHAPES[family.key], 7, 7, 4.2));
  mark.style.fill = `var(--f-${family.key})`;
  mark.style.display = "inline";
  return el("span", null, mark, ` ${family.title}`);
}

const MOST_PAIRED = 80; // cells grow with the square

function pairsPanel(table, rows) {
  const at = new Map(table.pairs.flatMap(([a, b, difference, low, high, p, d, significant]) => [
    [`${a} ${b}`, { difference, low, high, p, d, significant }],
    [`${b} ${a}`, { difference: -difference, low: -high, high: -low, p, d: -d, significant }]]));
  const told = el("p", { class: "told", "aria-live": "polite" }, "Point at a cell, or step through them with the arrow keys.");
  const ordered = [...rows].sort((a, b) => a.rank - b.rank).slice(0, MOST_PAIRED);
  const cell = (row, other, i, j) => {
    const pair = at.get(`${row.rank - 1} ${other.rank - 1}`);
    const look = lookOf(pair);
    const text = pair ? pairText(row, other, pair) : row.method;
    return el("td", { class: look, tabindex: i || j ? -1 : 0, "aria-label": text }, { better: "+", worse: MINUS, open: "=", self: "" }[look]);
  };
  const tell = (event) => event.target.closest("td") && show(told, named(event.target.closest("td").getAttribute("aria-label")));
  const body = ordered.map((row, i) => el("tr", null, el("th", { scope: "row", class: "stick" }, `${row.rank}  `, named(row.method)), ordered.map((other, j) => cell(row, other, i, j))));
  const head = el("tr", null, el("th", { class: "stick" }, el("span", { class: "small" }, "row against column")), ordered.map((row) => el("th", { scope: "col", title: row.method }, row.rank)));
  const caption = `Every pair of methods by ${table.primary}`;
  const matrix = el("table", { class: "matrix", onkeydown: stepThrough, onmouseover: tell, onfocusin: tell },
    el("caption", null, caption), el("thead", null, head), el("tbody", null, body));
  const left = rows.length - ordered.length;
  return [left > 0 && el("p", { class: "notice" }, `The best ${MOST_PAIRED}; ${left} more do not fit. Filter by name or family to choose others.`),
    told, el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, matrix), el("div", { class: "under" },
    el("p", null, "Row against column: + better, − worse, = not told apart. Holm within all pairs of this table, and the same sign in every seed."))];
}

function lookOf(pair) {
  return !pair ? "self" : !pair.significant ? "open" : pair.difference > 0 ? "better" : "worse";
}

function pairText(row, other, pair) {
  const words = { better: "better than", worse: "worse than", open: "not told apart from" }[lookOf(pair)];
  return `${row.method} is ${words} ${other.method}: ${signed(pair.difference)} ${interval(pair.low, pair.high, signed)}, Holm p ${pValue(pair.p)}, d_z ${signed(pair.d, 3)}`;
}

function stepThrough(event) {
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell) return;
  event.preventDefault();
  const line = step[0] ? cell.parentElement[step[0] > 0 ? "nextElementSibling" : "previousElementSibling"] : cell.parentElement;
  const next = line && line.cells[cell.cellIndex + step[1]];
  if (next && next.tagName === "TD") next.focus();
}

function filesPanel(table) {
  return [el("p", null, "The table with all its digits, ready for a paper or a script."), fileList(table.files),
    el("h2", null, "Made by"), columnsOf(Object.entries(table.made_by).flatMap(([what, values]) => values.map((value) => [what, el("span", { class: "mono" }, value)]))),
    el("h2", null, "Data"), columnsOf([["dataset", named(table.dataset)], ["dataset hash", el("span", { class: "mono" }, table.dataset_hash)],
      ["protocol hash", el("span", { class: "mono" }, table.protocol.hash)]])];
}

function fileList(files) {
  if (!files.length) return el("p", { class: "dim" }, "No files were made for this table.");
  const abouts = [...new Set(files.map((file) => file.about))];
  const link = (file) => el("li", null, el("a", { href: encodeURI(file.href), download: !file.picture }, file.format), el("span", { class: "small" }, ` ${bytes(file.bytes)}`));
  return columnsOf(abouts.map((about) => [named(about), el("ul", { class: "files" }, files.filter((file) => file.about === about).map(link))]));
}
