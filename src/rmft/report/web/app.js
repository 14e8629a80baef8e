// The page: its views, and the address that holds all of what is shown (#view=trajectories&open=...).

const VIEWS = { overview: "Overview", curves: "Curves", trajectories: "Trajectories", compare: "Compare" };
const SECONDS_BETWEEN_LOOKS = 2;

const held = JSON.parse(document.getElementById("pieces").textContent);
const kept = new Map(); // pieces that a server gave, by name

const source = {
  live: held === null,
  async piece(name) {
    if (held) return held[name] || Promise.reject(new Error(`This file does not hold ${name}.`));
    if (kept.has(name)) return kept.get(name);
    const answer = await fetch(`data/${name.split("/").map(encodeURIComponent).join("/")}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const piece = await answer.json();
    if (name !== "runs") kept.set(name, piece);
    return piece;
  },
};

function state() {
  return new URLSearchParams(location.hash.slice(1));
}

function address(changes) { // the address of the same view with these changes; null takes a part away
  const next = state();
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of Array.isArray(value) ? (value.length ? value : [""]) : value === null ? [] : [value]) next.append(name, each);
  }
  return `#${next}`;
}

function change(changes) { // what is shown is already so
  history.replaceState(null, "", address(changes));
}

function go(changes) {
  location.hash = address(changes);
}

const nav = element("nav", { "aria-label": "Views" });
const main = element("main", { id: "main", tabindex: "-1" });
const news = element("p", { class: "news", role: "status" });
let runs = [];
let turn = 0; // counts what was shown, so that a slow piece does not replace a later one

function navigation() {
  const view = viewNow();
  const links = Object.entries(VIEWS).map(([name, title]) => element("a", { href: `#${new URLSearchParams({ run: runNow(), view: name })}`,
    "aria-current": name === view ? "page" : null }, title));
  const options = runs.map((run, place) => element("option", { value: String(place), selected: place === runNow() }, run.name));
  const select = runs.length > 1 ? element("label", {}, "Run ", element("select", { onchange: (event) => go({ run: event.target.value, open: null, beside: null }) }, ...options)) : null;
  const skip = element("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "Skip to content");
  nav.replaceChildren(skip, ...links, element("span", { class: "run" }, select || (runs[0] ? runs[0].name : "")));
}

function runNow() {
  const run = Number(state().get("run") || 0);
  return runs[run] ? run : 0;
}

function viewNow() {
  const view = state().get("view");
  return Object.hasOwn(VIEWS, view) ? view : "overview";
}

function controls() {
  return [...main.querySelectorAll("a, button, select, input, summary")];
}

function known(control) { // what a control is known by when the view is made again
  return [control.tagName, control.name || control.value || control.getAttribute("href") || control.textContent].join(" ");
}

async function contents(drawings) {
  const view = viewNow();
  if (view === "trajectories") return { title: "Trajectories", made: await trajectoriesView(runNow()) };
  const piece = await source.piece(view === "compare" ? "compare" : `${runNow()}/${view}`);
  return { title: piece.title, made: [blocks(piece, drawings)] };
}

async function show(keepPlace = false) {
  const now = ++turn;
  const drawings = [];
  main.setAttribute("aria-busy", "true");
  let page;
  try {
    page = await contents(drawings);
  } catch (error) {
    page = { title: "rmft", made: [element("h1", {}, "This could not be shown"), element("p", {}, error.message)] };
  }
  if (now !== turn) return;
  navigation();
  const place = { left: scrollX, top: scrollY };
  const focused = controls().includes(document.activeElement) ? known(document.activeElement) : null;
  const opened = new Set([...main.querySelectorAll("details[open] summary")].map((summary) => summary.textContent));
  document.title = page.title;
  main.replaceChildren(...page.made.filter((each) => each !== null));
  if (keepPlace) {
    for (const summary of main.querySelectorAll("summary")) summary.parentElement.open = opened.has(summary.textContent);
    scrollTo(place);
    if (focused !== null) controls().find((each) => known(each) === focused)?.focus({ preventScroll: true });
  }
  for (const drawing of drawings) {
    await new Promise((done) => setTimeout(done)); // what the user does comes first
    if (now !== turn) return;
    await drawing();
  }
  main.setAttribute("aria-busy", "false");
}

async function look() { // whether a run has changed since
  try {
    const next = (await source.piece("runs")).runs;
    const changed = next.some((run, place) => !runs[place] || run.version !== runs[place].version);
    runs = next;
    news.textContent = runs.some((run) => run.going_on) ? "A run has not ended; this page follows it." : "";
    if (changed) {
      const reading = viewNow() === "trajectories" && state().has("open");
      for (const name of [...kept.keys()]) if (!name.includes("/trajectory/")) kept.delete(name);
      if (!reading) await show(true);
    }
  } catch {
    news.textContent = "rmft view has been stopped; what is shown here stays as it is.";
  }
  setTimeout(look, 1000 * SECONDS_BETWEEN_LOOKS);
}

async function begin() {
  document.body.prepend(element("header", {}, nav), main, element("footer", {}, news));
  try {
    runs = (await source.piece("runs")).runs;
  } catch (error) {
    news.textContent = error.message;
  }
  addEventListener("hashchange", async () => {
    const known = nav.querySelector("[aria-current=page]")?.textContent;
    await show();
    if (VIEWS[viewNow()] !== known || state().has("open")) main.focus({ preventScroll: true });
    if (state().has("open")) scrollTo(0, 0);
  });
  await show();
  if (source.live) setTimeout(look, 1000 * SECONDS_BETWEEN_LOOKS);
}

begin();
