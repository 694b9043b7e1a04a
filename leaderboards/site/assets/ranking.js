// The ranked table of one dataset: pickers, what must be read first, filters, and the table with its whiskers.

function tableTitle(table) {
  return `${table.protocol.name} v${table.protocol.version}, ${sizeOf(table)}`;
}

function sizeOf(table) {
  const limited = table.limit_users ? `, ${whole(table.limit_users)} users` : "";
  const version = table.current ? "" : `, older version ${table.protocol.hash}`;
  return `${table.track}, ${table.profile}${limited}${version}`;
}

function pickers(table) {
  const inProtocol = SITE.tables.filter((one) => one.protocol.name === table.protocol.name);
  const protocols = [...new Set(SITE.tables.map((one) => one.protocol.name))];
  const datasets = [...new Set(inProtocol.map((one) => one.dataset))];
  const sizes = inProtocol.filter((one) => one.dataset === table.dataset);
  const nearest = (wanted) => SITE.tables.find((one) => wanted(one) && sizeOf(one) === sizeOf(table)) || SITE.tables.find(wanted);
  const row = (label, items, chosen, choose) => el("div", { class: "picker" }, el("span", { class: "label" }, label),
    tabList({ label, look: "segments", items: items.map((key) => ({ key, label: key })), chosen, choose, panel: "panel" }));
  return el("div", { class: "pickers" },
    row("Protocol", protocols, table.protocol.name, (name) => goTo(
      nearest((one) => one.protocol.name === name && one.dataset === table.dataset) || nearest((one) => one.protocol.name === name))),
    row("Dataset", datasets, table.dataset, (name) => goTo(
      nearest((one) => one.protocol.name === table.protocol.name && one.dataset === name))),
    sizes.length > 1 && chooser("Track and size", sizes.map((one) => ({ key: one.id, label: sizeOf(one) })), table.id,
      (id) => goTo(SITE.tables.find((one) => one.id === id))));
}

const SIZES = {
  smoke: "Profile smoke: a trial of the code, seconds of training. Not a result.",
  small: "Profile small: small models and short trainings; at full size a method may score and rank elsewhere." };

function opening(table) {
  const protocol = table.protocol;
  const facts = [`${users(table.users)} asked`, `${table.rows.length} methods`, `protocol ${protocol.name} v${protocol.version}`,
    `track ${table.track}`, `profile ${table.profile}`];
  return el("div", null, el("h1", null, named(table.dataset)),
    el("p", { class: "lede" }, facts.join(" · "), " · hash ", el("span", { class: "mono", title: "of the protocol's rules" }, protocol.hash)),
    !table.current && el("p", { class: "notice" }, "These runs followed an older version of the protocol; they are not ranked against newer ones."),
    table.trained && SIZES[table.profile] && el("p", { class: "notice" }, SIZES[table.profile]),
    table.heading.map((sentence) => el("p", { class: /limited|only|no finished/.test(sentence) || oneSeed(table) ? "notice" : "lede" }, sentence)));
}

function oneSeed(table) {
  return table.trained && table.seeds.length === 1;
}

function filterBar(table, counted) {
  const present = SITE.families.filter((family) => table.rows.some((row) => row.family === family.key));
  const search = el("input", { type: "search", placeholder: "Filter methods", "aria-label": "Filter methods by name", value: VIEW.q,
    oninput: (event) => choosePart("q", event.target.value) });
  const chip = (family) => {
    const button = el("button", { type: "button", title: family.about, "aria-pressed": !VIEW.hidden.has(family.key),
      onclick: (event) => {
        if (!VIEW.hidden.delete(family.key)) VIEW.hidden.add(family.key);
        event.currentTarget.setAttribute("aria-pressed", String(!VIEW.hidden.has(family.key)));
        remember();
        drawPanel();
      } }, family.title);
    button.style.setProperty("--dot", `var(--f-${family.key})`);
    return button;
  };
  return el("div", { class: "filters" }, search,
    el("div", { class: "chips", role: "group", "aria-label": "Families of methods" }, present.map(chip)), counted);
}

function shownRows(table) {
  const words = VIEW.q.toLowerCase().split(/\s+/).filter(Boolean);
  return table.rows.filter((row) => !VIEW.hidden.has(row.family) && words.every((word) => row.method.toLowerCase().includes(word)));
}

function rankColumn() {
  return { title: "#", first: true, num: true, low: true, look: "rank", hint: "place by the ranked metric among all methods of the table, whatever is filtered", value: (row) => row.rank, cell: (row) => row.rank };
}

function methodColumn(table) {
  return { title: "method", stick: true, look: "name", value: (row) => row.method, cell: (row) => [
    el("button", { type: "button", "aria-haspopup": "dialog", title: "how this row was made", onclick: () => openDetail(table, row) }, methodName(row.method)),
    tags(table, row)] };
}

function tags(table, row) {
  const tag = (text, look, title) => el("span", { class: classes("tag", look), title }, text);
  const fewer = row.seeds.length < table.seeds.length;
  return [
    row.floor && tag("floor", "floor", "nothing is learned; drawn as a dotted line through every row"),
    row.reference && tag("reference", null, "named by the protocol; all differences are to this method"),
    row.under_trained && tag("under-trained", "warn", "its training was stopped by the time cap, not by the validation score"),
    row.trials && tag(`${row.trials} trials`, null, "tuned on validation"),
    fewer && tag(`seed ${row.seeds.join(", ")} only`, "warn", "not every seed of this table was run"),
    row.runs.some((run) => run.fields.foreign) && tag("not run here", "warn", "its lists were submitted; only its scores were computed here")];
}

function verdictCell(row) {
  if (!row.verdict) return DASH;
  const look = LOOKS[row.verdict];
  return el("span", { class: `verdict ${look}` }, el("span", { class: `mark ${look}`, "aria-hidden": "true" }, SYMBOLS[look]), ` ${row.verdict}`);
}

function verdictWithDifference(row) {
  return [verdictCell(row), row.versus && el("span", { class: "by" }, signed(row.versus.difference))];
}

function floorLines(table) {
  return table.rows.filter((row) => row.floor && !row.method.includes(":"))
    .map((row) => ({ look: "floor-line", at: row.metrics[table.primary], title: `${row.method} ${number(row.metrics[table.primary])}` }));
}

function rankedScale(table) {
  return [0, rounded(Math.max(...table.rows.map((row) => row.interval[1])))];
}

function rankingPanel(table, rows) {
  const { primary, recall, reference } = table;
  const scale = rankedScale(table);
  const center = table.rows.find((row) => row.reference);
  const lines = [...floorLines(table), ...(center ? [{ look: "ref-line", at: center.metrics[primary], title: reference }] : [])];
  const best = bestTwo(table.rows, (row) => row.metrics[primary]);
  const columns = [rankColumn(), methodColumn(table),
    { title: primary, num: true, look: "value", hint: meaning(primary), value: (row) => row.metrics[primary], cell: (row) => [
      el("span", { class: best(row) }, number(row.metrics[primary])), el("span", { class: "bounds" }, interval(...row.interval))] },
    { title: "95 % interval", low: true, head: axisHead("95 % interval", scale), hint: "bootstrap over users, around the value; dotted: floors, line: reference", value: (row) => row.interval[0], cell: (row) => whisker({
      value: row.metrics[primary], low: row.interval[0], high: row.interval[1], scale, verdict: row.verdict, lines,
      text: `${number(row.metrics[primary])}, 95 % interval ${interval(...row.interval)}` }) },
    { title: recall, num: true, low: true, hint: meaning(recall), value: (row) => row.metrics[recall], cell: (row) => number(row.metrics[recall]) },
    ...Object.keys(table.settings).filter((name) => name !== "all").map((name) => ({ title: name, group: `${primary} among`, num: true, low: true,
      hint: `among ${name} candidates only`, value: (row) => row.metrics[`${primary}/${name}`], cell: (row) => number(row.metrics[`${primary}/${name}`]) })),
    ...(table.has_reference ? versusColumns(reference) : []),
    { title: "training", num: true, low: true, hint: "wall time, mean over seeds; none: nothing is trained", value: (row) => (row.cost.trained ? row.cost.train : 0), cell: (row) => (row.cost.trained ? seconds(row.cost.train) : "none") },
    { title: "ms / user", num: true, low: true, hint: "decoding stage, wall time divided by the users asked", value: (row) => row.cost.ms, cell: (row) => milliseconds(row.cost.ms) },
    { title: "params", num: true, low: true, hint: "parameters", value: (row) => row.cost.parameters, cell: (row) => brief(row.cost.parameters) }];
  return [dataTable({ id: "ranking", columns, rows, rowClass: rowLook, caption: `Ranked by ${primary}, with 95 % bootstrap intervals over users` }),
    legend(table), underRanking(table)];
}

function versusColumns(reference) {
  return [
    { title: `against ${reference}`, look: "said", hint: "difference in the ranked metric, and what the test says of it", value: (row) => (row.versus ? row.versus.difference : 0), cell: verdictWithDifference },
    { title: "Holm p", num: true, low: true, hint: "of the paired sign-flip test, adjusted for all methods of the table", value: (row) => row.versus && row.versus.p_holm, cell: (row) => pValue(row.versus && row.versus.p_holm) }];
}

function rowLook(row) {
  return classes(row.floor && "floor", row.reference && "is-reference");
}

function legend(table) {
  const floors = floorLines(table).sort((a, b) => a.at - b.at);
  return el("div", { class: "legend" },
    floors.length > 0 && el("span", null, `┊ floors: ${floors.map((floor) => floor.title).join(", ")}`),
    table.has_reference && Object.entries(SYMBOLS).map(([look, symbol]) => el("span", null,
      el("span", { class: `mark ${look}`, "aria-hidden": "true" }, symbol), ` ${look === "open" ? "not told apart" : look}`)),
    el("span", null, el("a", { href: "#reading" }, "How to read this")));
}

function underRanking(table) {
  const notes = [];
  if (table.one_target) notes.push("Every user has one target, so recall@K is hr@K (hit rate).");
  if (table.has_reference) notes.push(`Better and worse: Holm-adjusted p < .05 of a two-sided sign-flip permutation test over users against ${table.reference}, and the same sign in every seed.`);
  const limited = table.rows.filter((row) => row.limited).map((row) => row.method);
  if (limited.length) notes.push(`Decode-limited at the largest K, no larger beam was searched: ${limited.join(", ")}.`);
  return el("div", { class: "under" }, notes.map((note) => el("p", null, note)), absent(table));
}

function absent(table) {
  if (!table.absent.length) return null;
  const columns = [
    { title: "method", value: (row) => row.method, cell: (row) => named(row.method) },
    { title: "seed", num: true, value: (row) => row.seed, cell: (row) => row.seed },
    { title: "status", value: (row) => row.status, cell: (row) => row.status },
    { title: "reason", value: (row) => row.reason, cell: (row) => named(row.reason) }];
  return [el("h2", null, "Without a result"), dataTable({ id: "absent", caption: "Runs that gave no result", columns, rows: table.absent })];
}
