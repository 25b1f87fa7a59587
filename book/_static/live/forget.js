/* Forget it yourself: a 64-32-10 network learns pairs of digits one after the other, by a method that the reader chooses. */
"use strict";

(function (Live) {
  const { el, svg, number } = Live.ui;
  const PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]];
  const NAMES = PAIRS.map((pair) => pair.join(" and "));
  const TRAINING = { steps: 80, batchSize: 32, lr: 0.2 };
  const EVERY = 4; // steps between points of the curve
  const SHOWN = 14; // forgotten digits

  const strength = (v) => 10 ** v;
  const lambda = (min, max, value) => ({
    label: "Strength, λ", min, max, step: 0.25, value, of: strength, words: (v) => number(strength(v), 2),
  });
  const METHODS = {
    Finetune: { text: "fine-tuning: nothing", key: "sgd", name: "Fine-tuning" },
    L2: { text: "L2: equal springs", key: "l2", name: "L2", slider: lambda(-3, 2, -1) },
    EWC: { text: "EWC: springs by the Fisher", key: "ewc", name: "EWC", slider: lambda(-1, 8, 2) },
    MAS: { text: "MAS: springs by sensitivity", key: "mas", name: "MAS", slider: lambda(-3, 6, -1) },
    LwF: { text: "LwF: its old answers", key: "lwf", name: "LwF", slider: lambda(-2, 2, 0) },
    ER: {
      text: "replay: some old digits", key: "er", name: "Replay",
      slider: { label: "Kept of each digit", min: 0, max: 40, step: 1, value: 5, of: (v) => v, words: (v) => String(v) },
    },
  };
  const KINDS = {
    class: "class: which of all digits seen is it?",
    domain: "domain: is it even or odd?",
    task: "task: which of this pair is it?",
  };

  const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

  /** Test digits of earlier tasks that were right when their task had just been learned and are wrong now. */
  function forgotten(run, right) {
    const lost = [];
    let once = 0;
    for (let j = 0; j < run.learned - 1; j++) {
      const answers = run.answers(j);
      answers.forEach((answer, i) => {
        if (!right[j][i]) return;
        once += 1;
        if (answer !== run.scenario.test[j].y[i]) lost.push({ task: j, row: i, digit: run.scenario.test[j].digits[i], answer });
      });
    }
    return { lost, once };
  }

  Live.ui.figure("forget", "Forget it yourself, a live figure", (stage) => {
    const digits = Live.digits();
    const choice = { method: "Finetune", kind: "class", seed: 1 };
    const values = Object.fromEntries(Object.entries(METHODS).map(([m, { slider }]) => [m, slider ? slider.value : 0]));
    const tries = [];
    let run = null;
    let right = []; // right[j][i]: test digit i of task j was right just after task j
    let frame = 0;

    // controls
    const method = Live.ui.select({
      label: "What protects the old", value: choice.method, options: Object.entries(METHODS).map(([m, { text }]) => [m, text]),
      onchange: (m) => {
        choice.method = m;
        fit();
        again(true);
      },
    });
    const kind = Live.ui.select({
      label: "What the test asks", value: choice.kind, options: Object.entries(KINDS),
      onchange: (k) => again(true, (choice.kind = k)),
    });
    const slider = Live.ui.slider({
      label: "Strength, λ", min: 0, max: 1, step: 1, value: 0, words: String,
      oninput: (v) => again(false, (values[choice.method] = v)),
    });
    const fit = () => {
      const own = METHODS[choice.method].slider;
      slider.node.hidden = !own;
      if (own) slider.become({ ...own, value: values[choice.method] });
    };
    const next = Live.ui.button("", () => learn(run.learned + 1, true), { class: "live-button live-first" });
    const all = Live.ui.button("Learn all five", () => learn(PAIRS.length, true));
    const afresh = Live.ui.button("Start over", () => {
      fresh();
      learn(1, true);
    });
    const other = Live.ui.button("Other random numbers", () => again(true, (choice.seed += 1)));

    // what it shows
    const drawing = svg("svg", { role: "img", class: "live-drawing" });
    const board = el("div", { class: "live-board" }, drawing);
    const matrix = el("table", { class: "live-table live-matrix", "aria-label": "The matrix R" });
    const lostTitle = el("p", { class: "live-note" });
    const lostList = el("ul", { class: "live-digits" });
    const tried = el("table", { class: "live-table" });
    const status = Live.ui.status();
    stage.append(
      el("div", { class: "live-controls" }, method.node, kind.node, slider.node),
      el("div", { class: "live-buttons" }, next, all, afresh, other),
      board,
      el("div", { class: "live-results live-top" }, el("div", {}, el("p", { class: "live-note" }, "The matrix R: a row after each pair learned, a column for each pair tested"),
          el("div", { class: "live-scroll" }, matrix)), el("div", {}, lostTitle, lostList)),
      status.node,
      el("details", { class: "live-tries" }, el("summary", {}, "Your tries so far"), tried),
    );

    // learning
    function fresh() {
      cancelAnimationFrame(frame);
      const scenario = Live.split(digits, PAIRS, choice.kind);
      const { slider: own } = METHODS[choice.method];
      const protect = new Live.methods[choice.method](own ? own.of(values[choice.method]) : 0);
      run = new Live.Run({ net: new Live.MLP(64, 32, scenario.C), scenario, method: protect, seed: choice.seed, ...TRAINING });
      right = [];
    }

    /** The same tasks anew, as the controls now say. */
    function again(slowly) {
      const goal = Math.max(2, run.k + 1);
      fresh();
      learn(goal, slowly);
    }

    /** Train until so many tasks are learned: in view if `slowly`, else as fast as it goes, but never longer than a frame. */
    function learn(goal, slowly) {
      if (goal > PAIRS.length || run.learned >= goal) return;
      cancelAnimationFrame(frame);
      stage.dataset.state = "busy";
      const most = slowly && !Live.ui.calm() ? 3 : Infinity; // steps a frame
      const work = () => {
        const until = performance.now() + 12;
        for (let s = 0; s < most && run.learned < goal && performance.now() < until; s++) step();
        draw();
        if (run.learned < goal) frame = requestAnimationFrame(work);
        else finish();
      };
      work();
    }

    function step() {
      const before = run.learned;
      run.step();
      if (run.done % EVERY === 0 || run.learned > before) run.measure();
      if (run.learned > before) right.push(run.answers(before).map((answer, i) => answer === run.scenario.test[before].y[i]));
    }

    function finish() {
      stage.dataset.state = "ready";
      const last = run.R.at(-1);
      const { lost, once } = forgotten(run, right);
      const name = label();
      let text = `${name}, ${choice.kind}-incremental, after ${NAMES[run.learned - 1]}: ${percent(mean(last))} on average. `;
      if (run.learned > 1)
        text += `On ${NAMES[0]} it had ${percent(run.R[0][0])} and has ${percent(last[0])} now; ${lost.length} of ${once} old digits forgotten.`;
      status.say(text);
      if (run.learned > 1) {
        const key = `${name}, ${choice.kind}, ${run.learned} tasks, numbers ${choice.seed}`;
        const at = tries.findIndex((t) => t.key === key);
        if (at >= 0) tries.splice(at, 1);
        tries.unshift({ key, name, kind: choice.kind, tasks: run.learned, average: mean(last), first: last[0] });
        tries.splice(8);
        showTries();
      }
    }

    function label() {
      const { name, slider: own } = METHODS[choice.method];
      if (!own) return name;
      const value = own.words(values[choice.method]);
      return choice.method === "ER" ? `${name} of ${value} a digit` : `${name} with λ = ${value}`;
    }

    // drawing
    function draw() {
      const width = Live.ui.room(stage, 760);
      const p = Live.ui.plane({ width, height: 220, x: [0, Math.max(2, run.k + 1)], y: [0, 1.03], left: 48 });
      drawing.setAttribute("viewBox", `0 0 ${width} 220`);
      drawing.setAttribute("width", width);
      drawing.setAttribute("height", 220);
      board.style.width = `${width}px`;
      const tasks = Math.max(2, run.k + 1);
      const axes = Live.ui.axes(p, {
        xTicks: PAIRS.slice(0, tasks).map((_, k) => [k, ""]), yTicks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, `${100 * v}`]),
        xName: "while it learns", yName: "right on the test (%)",
      });
      const names = PAIRS.slice(0, tasks).map((pair, k) =>
        svg("text", { class: "live-label", x: p.x(k + 0.5), y: 196, "text-anchor": "middle" }, pair.join(", ")));
      const ways = PAIRS.slice(0, tasks).map((_, j) => {
        const points = run.curve.filter(({ row }) => row.length > j).map(({ at, row }) => [at, row[j]]);
        return svg("path", { class: `live-way live-way-${j} live-pair-${j}`, d: p.path(points) });
      });
      drawing.replaceChildren(axes, ...names, ...ways);
      drawing.setAttribute("aria-label", run.R.length
        ? `Accuracy on each pair of digits while the network learns. ${run.R.at(-1).map((v, j) => `${NAMES[j]} stands at ${percent(v)}`).join(", ")}.`
        : "Accuracy on each pair of digits while the network learns.");
      showMatrix(tasks);
      showLost();
      for (const button of [next, all]) button.setAttribute("aria-disabled", run.learned >= PAIRS.length); // keeps the focus
      next.textContent = run.learned < PAIRS.length ? `Learn ${NAMES[run.learned]}` : "All five are learned";
    }

    function showMatrix(tasks) {
      const cell = (i, j) => {
        const v = run.R[i] && run.R[i][j];
        if (v === undefined) return el("td", { class: "live-empty" }, j > i ? "" : "…");
        return el("td", { style: `background: color-mix(in srgb, var(--live-accent) ${Math.round(38 * v)}%, transparent)` }, percent(v));
      };
      matrix.replaceChildren(
        el("thead", {}, el("tr", {}, el("td", {}, "after"), PAIRS.slice(0, tasks).map((pair, j) =>
          el("th", { scope: "col" }, el("span", { class: `live-key live-pair-${j}` }), pair.join(", "))))),
        el("tbody", {}, PAIRS.slice(0, tasks).map((pair, i) =>
          el("tr", {}, el("th", { scope: "row" }, pair.join(", ")), PAIRS.slice(0, tasks).map((_, j) => cell(i, j))))),
      );
    }

    function showLost() {
      const { lost, once } = forgotten(run, right);
      lostTitle.textContent = run.learned < 2 ? "Forgotten digits appear here once a second pair is learned."
        : lost.length ? `Forgotten: ${lost.length} of ${once} test digits that it once had right. What each is, and what it is taken for now:`
          : `Forgotten: none of the ${once} test digits that it once had right.`;
      const shown = Math.min(SHOWN, lost.length); // from all tasks, not only from the first
      const some = Array.from({ length: shown }, (_, i) => lost[Math.floor((i * lost.length) / shown)]);
      const paint = Live.ui.ramp(stage);
      lostList.replaceChildren(...some.map(({ task, row, digit, answer }) => {
        const says = choice.kind === "domain" ? ["even", "odd"][answer] : String(answer);
        return el("li", {}, image(run.scenario.test[task].x, row, paint), el("span", {}, `${digit} → ${says}`));
      }));
    }

    function image(x, row, paint) {
      const canvas = el("canvas", { width: 8, height: 8, "aria-hidden": "true" });
      const pixels = new ImageData(8, 8);
      for (let k = 0; k < 64; k++) pixels.data.set([...paint(x[64 * row + k]), 255], 4 * k);
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      return canvas;
    }

    function showTries() {
      const alike = (t) => tries.filter((other) => other.kind === t.kind && other.tasks === t.tasks).map((other) => other.average);
      const best = (t) => alike(t).length > 1 && t.average === Math.max(...alike(t));
      tried.replaceChildren(
        el("thead", {}, el("tr", {}, ["method", "test asks", "pairs", "first pair", "average"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, tries.map((t) => el("tr", { class: best(t) ? "live-best" : null },
          el("th", { scope: "row" }, t.name), el("td", {}, t.kind), el("td", {}, String(t.tasks)),
          el("td", {}, percent(t.first)), el("td", {}, percent(t.average))))),
      );
    }

    fit();
    fresh();
    learn(2, false); // something to see before any click
    return draw;
  });

  Live.forget = { PAIRS, METHODS, TRAINING, forgotten };
})(window.Live);
