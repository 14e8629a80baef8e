// One trajectory, or two beside each other, round by round. Left of a line what the agent saw; what it could
// not see is marked as hidden.

const ROUNDS_AT_FIRST = 60;
const ARMS_AT_MOST = 12;

function firstParting(left, right) { // the first round that was decided differently, or -1
  const count = Math.max(left.rounds.length, right.rounds.length);
  for (let round = 0; round < count; round++) {
    const [a, b] = [left.rounds[round], right.rounds[round]];
    if (!a || !b || a.arm !== b.arm) return round;
    if (a.arm === null && JSON.stringify(a.probabilities) !== JSON.stringify(b.probabilities)) return round;
  }
  return -1;
}

function conversations(shown) { // shown: [{ label, trajectory }], one or two
  const rounds = Math.max(...shown.map(({ trajectory }) => trajectory.rounds.length));
  const heads = shown.map(({ label, trajectory }) => summary(label, trajectory));
  const totals = shown.map(({ trajectory }) => runningRegret(trajectory));
  const list = element("ol", { class: "rounds" });
  const add = (from, to) => {
    for (let round = from; round < Math.min(to, rounds); round++) {
      list.append(element("li", { class: "round", id: `round-${round + 1}`, tabindex: "-1" }, element("h3", {}, `Round ${round + 1}`),
        element("div", { class: "beside" }, ...shown.map(({ label, trajectory }, side) =>
          oneRound(trajectory, round, totals[side][round], shown.length > 1 ? label : "")))));
    }
  };
  add(0, ROUNDS_AT_FIRST);
  const more = element("button", { type: "button", onclick: () => { add(ROUNDS_AT_FIRST, rounds); more.remove(); } }, `Show all ${rounds} rounds`);
  let parting = null;
  if (shown.length > 1) {
    const round = firstParting(shown[0].trajectory, shown[1].trajectory);
    const jump = () => { if (round >= ROUNDS_AT_FIRST && more.isConnected) more.click(); visit(round); };
    parting = round < 0 ? element("p", { class: "parting" }, "They decide the same in every round.")
      : element("p", { class: "parting" }, "They part in ", element("button", { type: "button", onclick: jump }, `round ${round + 1}`), ".");
    if (round >= 0 && list.children[round]) list.children[round].classList.add("parts");
  }
  return [element("div", { class: "beside heads" }, ...heads), parting, list, rounds > ROUNDS_AT_FIRST ? more : null];
}

function visit(round) {
  const target = document.getElementById(`round-${round + 1}`);
  if (target) { target.scrollIntoView({ block: "start" }); target.focus({ preventScroll: true }); }
}

function runningRegret(trajectory) {
  let sum = 0;
  return trajectory.rounds.map((round) => { if (round.regret === null) return null; sum += round.regret; return sum; });
}

function summary(label, trajectory) {
  const path = trajectory.rounds.slice(0, 200).map((round, place) => {
    const best = bestArms(round).includes(round.arm);
    const name = round.arm === null ? "·" : (trajectory.options[round.arm] || "?").replace(/^arm /, "").split(" ")[0];
    const said = `round ${place + 1}: ${name}${best ? ", the best" : ""}`;
    return element("li", { class: best ? "hit" : null }, element("button", { type: "button", "aria-label": said, title: said, onclick: () => visit(place) }, name));
  });
  return element("section", { "aria-label": label }, element("h2", {}, label),
    element("dl", { class: "facts" }, ...trajectory.facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, typeof value !== "number" ? value : name === "regret" ? digits(value) : count(value))])),
    trajectory.missing ? element("p", { class: "note warn" }, trajectory.missing) : null,
    trajectory.failed ? element("p", { class: "note warn" }, `It failed: ${trajectory.failed}`) : null,
    trajectory.cut ? element("p", {}, `${count(trajectory.cut)} more rounds are not shown.`) : null,
    path.length ? element("ol", { class: "path", "aria-label": "Decisions; filled: the option of highest true mean" }, ...path) : null);
}

function bestArms(round) {
  if (!round.means) return [];
  const highest = Math.max(...round.means);
  return round.means.map((mean, arm) => (mean >= highest - 1e-9 ? arm : -1)).filter((arm) => arm >= 0);
}

function oneRound(trajectory, place, total, label) {
  const round = trajectory.rounds[place];
  if (!round) return element("div", { class: "side" }, label ? element("h4", {}, label) : null, element("p", { class: "none" }, "It had ended."));
  const refused = (round.refused || []).flatMap(([said, replied]) => [message("agent", "Agent, not understood", said), message("prompt", "Reply", replied || "")]);
  return element("div", { class: "side" }, label ? element("h4", {}, label) : null,
    round.prompt ? message("prompt", "Prompt", round.prompt) : null, ...refused, round.completion ? message("agent", round.cut ? "Agent, cut by its budget" : "Agent", round.completion) : null,
    armsTable(trajectory, round), outcome(round, total));
}

function message(kind, who, words) {
  return element("div", { class: `message ${kind}` }, element("span", { class: "who" }, who), element("div", { class: "words" }, words));
}

function armsTable(trajectory, round) {
  const best = bestArms(round);
  const count = trajectory.options.length;
  if (!count) return null;
  const weight = (arm) => (arm === round.arm ? 2 : 0) + (best.includes(arm) ? 1 : 0) + (round.probabilities ? round.probabilities[arm] || 0 : 0);
  let arms = [...Array(count).keys()];
  if (count > ARMS_AT_MOST) arms = arms.sort((a, b) => weight(b) - weight(a)).slice(0, ARMS_AT_MOST).sort((a, b) => a - b);
  const rows = arms.map((arm) => {
    const chance = round.probabilities ? round.probabilities[arm] : null;
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    if (chance !== null && chance !== undefined) bar.style.width = `${100 * Math.min(chance, 1)}%`;
    return element("tr", { class: arm === round.arm ? "chosen" : null }, element("th", { scope: "row" }, trajectory.options[arm], arm === round.arm ? element("small", {}, " chosen") : null),
      element("td", { class: "chance" }, bar, chance === null || chance === undefined ? "–" : `${(100 * chance).toFixed(1)}%`),
      round.means ? element("td", { class: "hidden-truth" }, digits(round.means[arm]), best.includes(arm) ? element("small", {}, " best") : null) : null);
  });
  const head = element("tr", {}, element("th", { scope: "col" }, "option"), element("th", { scope: "col" }, "probability"),
    round.means ? element("th", { scope: "col", class: "hidden-truth" }, "true mean (hidden)") : null);
  return element("table", { class: "arms" }, element("thead", {}, head), element("tbody", {}, ...rows));
}

function outcome(round, total) {
  const seen = round.seen === null ? null : Array.isArray(round.seen) ? `seen: ${round.seen.map(digits).join(", ")}` : `reward ${digits(round.seen)}`;
  const advantage = round.advantage === undefined ? null : `advantage ${digits(round.advantage)}`;
  const undecided = round.probabilities && round.probabilities.every((chance) => chance === 0); // it had failed
  const visible = undecided ? "no decision" : [seen, advantage].filter(Boolean).join(" · ");
  return element("p", { class: "outcome" }, visible, round.regret === null ? null
    : element("span", { class: "hidden-truth" }, `hidden: regret ${digits(round.regret)}, so far ${digits(total)}`));
}
