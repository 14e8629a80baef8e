// The blocks that a piece is made of; `drawings` gains what has to be drawn once they are in the page.

const BLOCKS = {
  heading: (block) => element(`h${block.level}`, { class: "block wide" }, block.text),
  text: (block) => element("p", { class: `block wide ${block.role}` }, block.text),
  note: (block) => element("div", { class: block.warn ? "block wide note warn" : "block wide note", role: block.warn ? "note" : null },
    element("p", {}, block.text), block.items.length ? element("ul", {}, ...block.items.map((item) => element("li", {}, item))) : null),
  table: tableBlock,
  chart: chartBlock,
  policies: policiesBlock,
  pairs: (block) => element("section", { class: "block" }, element("h3", {}, block.title),
    element("dl", {}, ...block.pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]))),
  source: (block) => element("section", { class: "block" }, element("h3", {}, block.title),
    element("pre", { tabindex: "0", role: "region", "aria-label": block.title }, block.text)),
};

let policies = null; // the switches of what is shown now

function blocks(piece, drawings) {
  policies = piece.blocks.find((block) => block.kind === "policies") || null;
  return element("div", { class: "blocks" }, ...piece.blocks.map((block) => BLOCKS[block.kind](block, drawings)));
}

function chosenPolicies() {
  return new Set(state().has("policy") ? state().getAll("policy") : policies ? policies.shown : []);
}

function policiesBlock(block) {
  const chosen = chosenPolicies();
  const boxes = block.names.map((name, place) => {
    const box = element("input", { type: "checkbox", value: name, checked: chosen.has(name) });
    return element("label", {}, box, key(block.styles[place]), block.labels[place]);
  });
  const inputs = boxes.map((label) => label.firstChild);
  const changed = () => {
    change({ policy: inputs.filter((box) => box.checked).map((box) => box.value) });
    redraw();
  };
  const set = (checked) => () => { for (const box of inputs) box.checked = checked; changed(); };
  return element("fieldset", { class: "block wide policies", onchange: changed }, element("legend", {}, "Policies in the charts"), ...boxes,
    tools([element("button", { type: "button", onclick: set(true) }, "all"), element("button", { type: "button", onclick: set(false) }, "none")]));
}
