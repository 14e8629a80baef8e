// Elements from data, and numbers as a reader sees them. What comes from a run only ever becomes text nodes.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function count(value) { // a whole number as it is, any other as a measure
  return Number.isInteger(value) ? value.toLocaleString("en").replace("-", "−") : digits(value);
}

function digits(value) { // about three digits: 1,234, 16.6, 3.68, 0.0042
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let written;
  if (size >= 1e6) written = value.toExponential(1);
  else if (size > 0 && size < 0.01) written = String(Number(value.toPrecision(2)));
  else if (size >= 100) written = value.toLocaleString("en", { maximumFractionDigits: 0 });
  else written = value.toFixed(size >= 10 ? 1 : 2);
  return written.replace("-", "−");
}

function inWords(cell, signed = false) { // a cell of a table as plain text
  if (typeof cell === "string") return cell;
  if (!Array.isArray(cell)) return count(cell);
  const [mean, low, high] = cell;
  return (signed && mean > 0 ? "+" : "") + digits(mean) + (low === null || high === null ? "" : ` [${digits(low)}, ${digits(high)}]`);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function save(name, type, content) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function fileName(title, ending) {
  return `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table"}.${ending}`;
}
