// One row's provenance: what was run, from what, on what, and how to check it.

function openDetail(table, row) {
  VIEW.row = row.method;
  remember();
  drawDetail();
}

// The row that the address names, if any.
function drawDetail() {
  const dialog = document.getElementById("detail");
  const row = VIEW.page === "leaderboard" && VIEW.table && VIEW.table.rows.find((one) => one.method === VIEW.row);
  if (row) showDetail(dialog, VIEW.table, row);
  else dialog.close();
}

function showDetail(dialog, table, row) {
  const close = el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
  const single = row.runs.length === 1;
  show(dialog,
    el("div", { class: "detail-head" }, el("h2", { id: "detail-title" }, named(row.method)), close),
    el("div", { class: "detail-body" }, resultOf(table, row), row.runs.map((run) => runOf(run, single))));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function resultOf(table, row) {
  const versus = row.versus;
  const card = SITE.methods.find((one) => one.places.some((place) => place.method === row.method));
  return [el("p", { class: "lede" }, `Place ${row.rank} of ${table.rows.length} on `, named(table.dataset), `, ${tableTitle(table)}.`),
    columnsOf([
      [table.primary, `${number(row.metrics[table.primary])} ${interval(...row.interval)}, 95 % over users`],
      versus && [`against ${table.reference}`, [verdictCell(row), ` ${signed(versus.difference)} ${interval(...versus.interval, signed)}, Holm p ${pValue(versus.p_holm)}`]],
      ["seeds", row.seeds.join(", ")],
      ["training", row.cost.trained ? `${seconds(row.cost.train)}, ended by: ${endings(row.cost.stopped_by) || "all epochs done"}` : "none"],
      ["decoding", `${seconds(row.cost.decode)}, ${milliseconds(row.cost.ms)} ms per user`],
      card && ["method card", el("a", { href: `#methods/${encodeURIComponent(card.key)}` }, card.title)],
    ].filter(Boolean))];
}

function runOf(run, open) {
  const { provenance, config, files, timings, peak_memory_bytes: memory, spend, facts, ...rest } = run.fields;
  const part = (title, value) => value && Object.keys(value).length > 0 && [el("h3", null, title), columnsOf(flat(value))];
  return el("details", { open }, el("summary", null, `Run with seed ${run.fields.seed}`),
    el("p", { class: "small" }, "Its record, below the folder of the results; ", el("code", { class: "mono" }, "python run_all.py verify"), " checks it from its lists alone: ",
      el("span", { class: "mono" }, run.path)),
    run.command && [el("h3", null, "Made again by"), el("p", { class: "small" }, "At the commit and with the versions and text encoder named below."), copied(run.command, "command")],
    run.curve.length > 1 && [el("h3", null, "Validation score by epoch"), spark(run.curve)],
    part("Configuration", config), part("Identity", rest), part("Counts of the data", facts), part("Checksums of its files, SHA-256", files),
    part("Made with", provenance), part("Training", run.training), part("Seconds", timings), part("Peak memory, bytes", memory), part("Spend per user", spend));
}

// Nested values as lines "a.b.c: value".
function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([name, one]) => {
    const path = prefix + name;
    if (one !== null && typeof one === "object" && !Array.isArray(one)) return flat(one, `${path}.`);
    const text = one === null ? "none" : Array.isArray(one) ? one.map((item) => (typeof item === "object" ? JSON.stringify(item) : item)).join(", ") : String(one);
    return [[path, el("span", { class: "mono" }, named(text))]];
  });
}
