// Finding trajectories among all of a run, and one or two of them as conversations.

const PER_PAGE = 50;

async function trajectoriesView(run) {
  const index = await source.piece(`${run}/trajectories`);
  const opened = state().get("open");
  return opened ? openedTrajectory(run, index, opened) : trajectoryList(run, index);
}

function nameOf(index, place) {
  return `${index.files[index.columns.file[place]].name}.${index.columns.row[place]}`;
}

function placeOf(index, name) {
  const file = index.files.findIndex((each) => name.startsWith(`${each.name}.`) && !name.slice(each.name.length + 1).includes("."));
  const row = Number(name.slice(name.lastIndexOf(".") + 1));
  return index.columns.row.findIndex((each, place) => each === row && index.columns.file[place] === file);
}

function found(index, wanted) { // places of the trajectories that fit, in the order asked for
  const columns = index.columns;
  const tests = [];
  const where = wanted.get("where");
  if (where) {
    const fits = index.files.map((file) => (where === "training" ? file.iteration !== null : file.name === where));
    tests.push((place) => fits[columns.file[place]]);
  }
  if (wanted.has("suite")) {
    const fits = index.files.map((file) => file.suite === wanted.get("suite"));
    tests.push((place) => fits[columns.file[place]]);
  }
  if (wanted.has("iteration")) {
    const iteration = Number(wanted.get("iteration"));
    const fits = index.files.map((file) => file.iteration === iteration);
    tests.push((place) => fits[columns.file[place]]);
  }
  for (const name of ["policy", "setting", "context"]) {
    if (!wanted.has(name)) continue;
    const code = index.names[name].indexOf(wanted.get(name));
    tests.push((place) => columns[name][place] === code);
  }
  for (const name of ["selected", "failed"]) {
    if (!wanted.has(name)) continue;
    const flag = wanted.get(name) === "yes" ? 1 : 0;
    tests.push((place) => columns[name][place] === flag);
  }
  const bound = (name) => (wanted.has(name) && wanted.get(name) !== "" ? Number(wanted.get(name)) : null);
  const [least, most] = [bound("least"), bound("most")];
  if (least !== null) tests.push((place) => columns.regret[place] !== null && columns.regret[place] >= least);
  if (most !== null) tests.push((place) => columns.regret[place] !== null && columns.regret[place] <= most);
  const places = [];
  for (let place = 0; place < columns.row.length; place++) {
    if (tests.every((test) => test(place))) places.push(place);
  }
  const sort = { lowest: 1, highest: -1 }[wanted.get("sort")];
  const regret = (place) => (columns.regret[place] === null ? Infinity : sort * columns.regret[place]);
  return sort ? places.sort((a, b) => regret(a) - regret(b) || a - b) : places;
}

function trajectoryList(run, index) {
  const results = element("div", { class: "results" });
  const update = () => {
    performance.mark("filter-begun");
    results.replaceChildren(...resultsOf(index));
    performance.measure("filter", "filter-begun");
  };
  const changed = (event) => {
    const field = event.target;
    if (field.name) { change({ [field.name]: field.value || null, page: null }); update(); }
  };
  update();
  const form = element("form", { class: "filters", role: "search", "aria-label": "Trajectories", onchange: changed, oninput: (event) => { if (event.target.type === "number") changed(event); },
    onsubmit: (event) => event.preventDefault() }, ...filterFields(index));
  results.addEventListener("click", (event) => {
    const page = event.target.closest("button")?.value;
    if (page) { change({ page: page === "0" ? null : page }); update(); results.querySelector("p").focus(); }
  });
  return [element("h1", {}, "Trajectories"), ...[index.stored, index.note].filter(Boolean).map((said) => element("p", { class: "caption" }, said)), pairLinks(index), form, results];
}

function filterFields(index) {
  const said = index.files.filter((file) => file.iteration === null);
  const trained = index.files.filter((file) => file.iteration !== null);
  const values = (name) => index.names[name].map((value) => [value, name === "policy" ? policyName(value) : value]);
  const known = (name) => index.columns[name].some((flag) => flag !== null);
  const suites = suitesOf(index);
  const yesNo = [["yes", "yes"], ["no", "no"]];
  return [
    said.length ? choice("where", "From", [...(trained.length ? [["training", "training"]] : []), ...said.map((file) => [file.name, file.title])]) : null,
    suites.length > 1 ? choice("suite", "Suite", suites.map((suite) => [suite, suite])) : null,
    trained.length > 1 ? choice("iteration", "Iteration", trained.map((file) => [String(file.iteration), String(file.iteration)])) : null,
    index.names.policy.length ? choice("policy", "Played by", values("policy")) : null,
    index.names.setting.length > 1 ? choice("setting", "Setting", values("setting")) : null,
    index.names.context.length > 1 ? choice("context", "Context", values("context").sort((a, b) => a[0].localeCompare(b[0]))) : null,
    known("selected") ? choice("selected", "Learned from", yesNo) : null,
    known("failed") ? choice("failed", "Failed", yesNo) : null,
    amount("least", "Regret from"), amount("most", "to"),
    choice("sort", "Order", [["lowest", "lowest regret first"], ["highest", "highest regret first"]], "as played"),
  ];
}

function suitesOf(index) {
  return [...new Set(index.files.map((file) => file.suite).filter(Boolean))].sort();
}

function choice(name, label, values, any = "any") {
  const now = state().get(name);
  const options = [["", any], ...values].map(([value, said]) => element("option", { value, selected: value === (now || "") }, said));
  return element("label", {}, label, element("select", { name, "aria-label": label }, ...options));
}

function amount(name, label) {
  return element("label", {}, label, element("input", { type: "number", step: "any", name, "aria-label": label === "to" ? "Regret to" : label, value: state().get(name) || "" }));
}

function policyName(name) {
  return { best: "after training", start: "before training" }[name] || name;
}

function resultsOf(index) {
  const places = found(index, state());
  const last = Math.max(Math.ceil(places.length / PER_PAGE) - 1, 0);
  const page = Math.min(Math.max(Number(state().get("page")) || 0, 0), last);
  const all = index.columns.row.length;
  const status = element("p", { class: "count", role: "status", tabindex: "-1" },
    `${count(places.length)} of ${count(all)} trajectories` + (last ? `, page ${page + 1} of ${count(last + 1)}` : ""));
  const turn = (to, label) => element("button", { type: "button", value: String(to), disabled: to < 0 || to > last }, label);
  const context = index.names.context.length ? ["context"] : [];
  const head = ["trajectory", "setting", ...context, "problem", "rollout", "regret", "learned from", "failed"];
  const rows = places.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((place) => resultRow(index, place));
  return [element("div", { class: "title" }, status, last ? tools([turn(page - 1, "previous"), turn(page + 1, "next")]) : null),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trajectories found (scrolls)" }, element("table", { class: "found" },
      element("thead", {}, element("tr", {}, ...head.map((title) => element("th", { scope: "col" }, title)))), element("tbody", {}, ...rows)))];
}

function resultRow(index, place) {
  const value = (name) => index.columns[name][place];
  const named = (name) => (value(name) === null ? "–" : index.names[name][value(name)]);
  const flag = (name) => ({ 1: "yes", 0: "no" })[value(name)] || "–";
  const title = index.files[value("file")].title + (value("policy") === null ? "" : `: ${policyName(named("policy"))}`);
  return element("tr", {}, element("th", { scope: "row" }, element("a", { href: address({ open: nameOf(index, place), beside: null }) }, title)),
    ...[named("setting"), named("context"), value("problem"), value("rollout"), digits(value("regret")), flag("selected"), flag("failed")]
      .filter((_, column) => column !== 1 || index.names.context.length).map((cell) => element("td", {}, String(cell))));
}

function pairLinks(index) { // problems that several policies played, to lay them side by side
  const { file, policy, problem } = index.columns;
  const of = (place) => (suitesOf(index).length > 1 ? `${index.files[place].suite} ` : "");
  const starts = [];
  for (let place = 0; place < file.length; place++) {
    if (policy[place] !== null && index.names.policy[policy[place]] === "start") starts.push(place);
  }
  if (!starts.length) return null;
  starts.sort((a, b) => problem[a] - problem[b]).splice(12);
  return element("p", { class: "pairs" }, "Before and after training on the same problem: ",
    ...starts.flatMap((place) => [element("a", { href: address({ open: nameOf(index, place), beside: null }) }, of(file[place]) + `problem ${problem[place]}`), " "]));
}

function rivals(index, place) { // others on the same problem: of an evaluation other policies, of training other rollouts
  const { file, setting, problem } = index.columns;
  const places = [];
  for (let other = 0; other < file.length; other++) {
    if (other !== place && file[other] === file[place] && setting[other] === setting[place] && problem[other] === problem[place]) places.push(other);
  }
  return places;
}

function labelOf(index, place) {
  const { policy, rollout, selected } = index.columns;
  if (policy[place] !== null) return policyName(index.names.policy[policy[place]]);
  return `rollout ${rollout[place]}` + (selected[place] === 1 ? ", learned from" : selected[place] === 0 ? ", not learned from" : "");
}

async function openedTrajectory(run, index, name) {
  const place = placeOf(index, name);
  const back = element("a", { href: address({ open: null, beside: null }) }, "All trajectories");
  if (place < 0) return [element("h1", {}, "Trajectory"), element("p", {}, `There is no trajectory ${name} here. `, back)];
  const others = rivals(index, place);
  const judged = index.files[index.columns.file[place]].iteration === null;
  const asked = state().get("beside");
  const beside = asked ? others.find((other) => nameOf(index, other) === asked) : judged ? others[0] : undefined;
  const shown = [];
  for (const each of beside === undefined ? [place] : [place, beside]) {
    shown.push({ label: labelOf(index, each), trajectory: await source.piece(`${run}/trajectory/${nameOf(index, each)}`) });
  }
  const select = element("select", { id: "beside", onchange: (event) => go({ beside: event.target.value }) },
    element("option", { value: "none" }, "nothing"),
    ...others.slice(0, 500).map((other) => element("option", { value: nameOf(index, other), selected: other === beside },
      `${labelOf(index, other)}, regret ${digits(index.columns.regret[other])}`)));
  const places = found(index, state());
  const at = places.indexOf(place);
  const step = (to, label) => (at >= 0 && places[to] !== undefined ? element("a", { href: address({ open: nameOf(index, places[to]), beside: null }) }, label) : null);
  return [element("h1", {}, `${shown[0].trajectory.title}: problem ${index.columns.problem[place]}`),
    element("div", { class: "title" }, element("p", { class: "steps" }, back, step(at - 1, "previous"), step(at + 1, "next")),
      others.length ? element("label", {}, "Beside it ", select) : null),
    ...conversations(shown)];
}
