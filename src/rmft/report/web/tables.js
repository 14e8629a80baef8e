// Tables, and the same numbers as CSV.

function tableBlock(block) {
  return element("section", { class: "block wide" },
    element("div", { class: "title" }, element("h3", {}, block.title), tools([csvButton(block)])),
    block.caption ? element("p", { class: "caption" }, block.caption) : null,
    scrolling(block));
}

function scrolling(block) { // a table that scrolls by itself where the page is narrow
  const head = element("tr", {}, ...block.columns.map((title) => element("th", { scope: "col" }, title)));
  const body = block.rows.map((row, place) => element("tr", { class: (block.strong || []).includes(place) ? "best" : null },
    ...row.map((cell, column) => tableCell(cell, column, (block.signed || []).includes(column), (block.keys || [])[place]))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${block.title} (scrolls)` },
    element("table", { "aria-label": block.title }, element("thead", {}, head), element("tbody", {}, ...body)));
}

function tableCell(cell, column, signed, style) {
  if (column === 0) return element("th", { scope: "row" }, style ? key(style) : null, inWords(cell));
  const [mean, ...interval] = inWords(cell, signed).split(" [");
  const rest = Array.isArray(cell) && interval.length ? element("small", {}, ` [${interval[0]}`) : null;
  return element("td", typeof cell === "string" ? { class: "words" } : {}, Array.isArray(cell) ? mean : inWords(cell, signed), rest);
}

function key(style) { // a short line as a policy is drawn
  const line = { solid: "solid", dot: "dotted" }[style.dash] || "dashed";
  const made = element("span", { class: "key", "aria-hidden": "true" });
  made.style.borderTop = `3px ${line} ${style.colour}`;
  return made;
}

function tools(buttons) {
  return element("div", { class: "tools" }, ...buttons);
}

function csvButton(block) {
  return element("button", { type: "button", "aria-label": `Download ${block.title} as CSV`,
    onclick: () => save(fileName(block.title, "csv"), "text/csv", csv(block.columns, block.rows)) }, "CSV");
}

function csv(columns, rows) { // an interval takes three columns: mean, low, high
  const wide = columns.map((_, column) => rows.some((row) => Array.isArray(row[column])));
  const head = columns.flatMap((title, column) => wide[column] ? [title, `${title} low`, `${title} high`] : [title]);
  const body = rows.map((row) => row.flatMap((cell, column) => {
    if (!wide[column]) return [cell];
    return Array.isArray(cell) ? cell : [cell, null, null];
  }));
  return [head, ...body].map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function quoted(cell) { // a string that a spreadsheet would take for a formula gets an apostrophe before it
  if (cell === null || cell === undefined) return "";
  if (typeof cell === "number") return String(cell);
  const text = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
