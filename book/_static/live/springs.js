/* Springs: a classifier with two weights learns task A, then B, by plain descent, with equal springs (L2) and with EWC's. */
"use strict";

(function (Live) {
  const { el, svg, number, minus } = Live.ui;
  const STEPS = 1000;
  const FAR = 60; // a way that leads farther than this from the origin has broken
  const RANGE = { x: [-3.2, 3.4], y: [-3.9, 4.4] };
  const METHODS = [["SGD", "sgd"], ["L2", "l2"], ["EWC", "ewc"]];

  /** The way of descent on B from theta*_A, with springs that pull implicitly or explicitly: every point, and the steps. */
  function way(task, spring, how) {
    const points = [spring.star];
    for (let s = 0; s < STEPS; s++) {
      const last = points[points.length - 1];
      const next = Live.springStep(last, task, spring, how);
      points.push(next);
      const length = Math.hypot(next[0] - last[0], next[1] - last[1]);
      if (length < 1e-5 || !(Math.hypot(...next) < FAR)) break;
    }
    const end = points[points.length - 1];
    const steps = points.length - 1;
    return { points, end, steps, broken: !(Math.hypot(...end) < FAR), unsettled: steps === STEPS && swings(points) };
  }

  /** Whether the last steps still go back and forth. */
  function swings(points) {
    const [a, b, c] = points.slice(-3);
    const [u, v] = [[b[0] - a[0], b[1] - a[1]], [c[0] - b[0], c[1] - b[1]]];
    return u[0] * v[0] + u[1] * v[1] < 0 && Math.hypot(...v) > 1e-3;
  }

  /** Everything the figure shows, from where the reader has put things. */
  function solve({ A, B, eta, lam, implicit }) {
    const star = A.w.slice();
    const F = A.fisher(star);
    const mean = (F[0] + F[1]) / 2; // L2 gets the same stiffness in all, dealt out evenly
    const springs = { SGD: [0, 0], L2: [mean, mean], EWC: F };
    const ways = {};
    for (const [name] of METHODS) ways[name] = way(B, { omega: springs[name], star }, { eta, lam, implicit });
    return { star, F, springs, ways, bound: 2 / (eta * Math.max(...F)) };
  }

  /** The border of {theta: loss(theta) <= least + rise}: from the optimum out along rays, on which the loss only grows. */
  function region(task, rise) {
    const level = task.loss(task.w) + rise;
    const F = task.fisher(task.w);
    const border = [];
    for (let k = 0; k < 72; k++) {
      // one unit along a ray costs about 1/2 by the Fisher, so the rays lie where a long ellipse bends
      const u = [Math.cos((2 * Math.PI * k) / 72) / Math.sqrt(F[0]), Math.sin((2 * Math.PI * k) / 72) / Math.sqrt(F[1])];
      const at = (r) => [task.w[0] + r * u[0], task.w[1] + r * u[1]];
      let [low, high] = [0, 0.25];
      while (high < 8 && task.loss(at(high)) < level) [low, high] = [high, 2 * high];
      for (let i = 0; i < 7 && high < 8; i++) {
        const middle = (low + high) / 2;
        if (task.loss(at(middle)) < level) low = middle;
        else high = middle;
      }
      border.push(at((low + high) / 2));
    }
    return border;
  }

  /** A coil from a to b (pixels): more turns and a bolder wire for a stiffer spring. */
  function coil(a, b, stiffness) {
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const strong = Math.min(1, Math.max(0, (Math.log10(stiffness) + 3) / 5)); // 0 at 0.001, 1 at 100
    const turns = Math.round(5 + 9 * strong);
    const [u, v] = length > 0 ? [(b[0] - a[0]) / length, (b[1] - a[1]) / length] : [1, 0];
    const points = [a];
    for (let k = 1; k < 2 * turns; k++) {
      const along = (length * k) / (2 * turns);
      const aside = (k % 2 ? 7 : -7) * Math.min(1, length / 24);
      points.push([a[0] + along * u - aside * v, a[1] + along * v + aside * u]);
    }
    points.push(b);
    return svg("path", {
      class: "live-coil",
      d: points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""),
      "stroke-width": (1 + 3 * strong).toFixed(2),
    });
  }

  Live.ui.figure("springs", "Springs on two weights, a live figure", (stage) => {
    const toy = Live.data.toy;
    const start = { A: toy.A.w, B: toy.B.w, lam: 1, eta: 0.5, implicit: true };
    const state = {
      A: new Live.TwoWeights(Float64Array.from(toy.A.x), start.A.slice()),
      B: new Live.TwoWeights(Float64Array.from(toy.B.x), start.B.slice()),
      eta: start.eta, lam: start.lam, implicit: start.implicit, shown: STEPS,
    };
    let found = solve(state);
    let borders = {};
    let p = null;
    const clip = Live.ui.unique();

    // controls
    const change = (event) => {
      stop();
      found = solve(state);
      state.shown = STEPS;
      scrub.value = STEPS;
      draw();
      tell(event);
    };
    const lam = Live.ui.slider({
      label: "Strength of the springs, λ", min: -2, max: 4, step: 0.05, value: 0, words: (v) => number(10 ** v, 2),
      oninput: (v) => change((state.lam = 10 ** v)),
    });
    const bound = el("span", { class: "live-bound" }, el("span", {}, "2/(η max Ω)"));
    lam.node.append(bound);
    lam.node.classList.add("live-with-mark");
    const eta = Live.ui.slider({
      label: "Step size, η", min: 0.1, max: 2, step: 0.1, value: start.eta, words: (v) => number(v, 2),
      oninput: (v) => change((state.eta = v)),
    });
    const pulling = Live.ui.select({
      label: "Springs pull by the", value: "implicit", options: [["implicit", "implicit step"], ["explicit", "explicit step"]],
      onchange: (v) => change((state.implicit = v === "implicit")),
    });
    const scrub = Live.ui.slider({
      label: "Steps shown", min: 0, max: STEPS, step: 1, value: STEPS, words: (v) => (v === STEPS ? "all" : String(v)),
      oninput: (v) => {
        stop();
        state.shown = v;
        draw();
      },
    });
    let playing = 0;
    const stop = () => {
      cancelAnimationFrame(playing);
      playing = 0;
      play.textContent = "Play the steps";
    };
    const play = Live.ui.button("Play the steps", () => {
      if (playing) return stop();
      if (Live.ui.calm()) return show(STEPS); // no motion for those who want none: the slider beside shows any step
      play.textContent = "Stop";
      let shown = 0;
      const frame = () => {
        show(Math.round(shown));
        shown = shown * 1.04 + 0.5; // slow at first, where the ways part
        if (shown < STEPS) playing = requestAnimationFrame(frame);
        else show(STEPS);
      };
      playing = requestAnimationFrame(frame);
    });
    const show = (n) => {
      if (n >= STEPS) stop();
      state.shown = scrub.value = n;
      draw();
    };
    const reset = Live.ui.button("Start over", () => {
      Object.assign(state, { eta: start.eta, lam: start.lam, implicit: start.implicit });
      for (const task of ["A", "B"]) state[task].moveTo(start[task].slice());
      borders = {};
      [lam.value, eta.value, pulling.input.value] = [Math.log10(start.lam), start.eta, "implicit"];
      change();
    });

    // the plane and its two handles
    const board = el("div", { class: "live-board" });
    const drawing = svg("svg", { role: "img", class: "live-drawing" });
    const move = (task) => ({ to, by }) => {
      const at = to ? p.inverse(...to) : state[task].w.map((w, k) => w + by[k]);
      const inside = (v, [low, high]) => Math.min(high - 0.4, Math.max(low + 0.4, v)); // a handle stays whole
      state[task].moveTo([inside(at[0], RANGE.x), inside(at[1], RANGE.y)].map((v) => Math.round(100 * v) / 100));
      delete borders[task];
      change();
    };
    const handles = {
      A: Live.ui.handle({ text: "A", class: "live-task-a", move: move("A") }),
      B: Live.ui.handle({ text: "B", class: "live-task-b", move: move("B") }),
    };
    board.append(drawing, handles.A, handles.B);
    const rows = {};
    const table = el("table", { class: "live-table" },
      el("thead", {}, el("tr", {}, ["learned B by", "loss on A", "loss on B", "sum"].map((t) => el("th", { scope: "col" }, t)))),
      el("tbody", {}, METHODS.map(([name, key]) => {
        rows[name] = [el("td"), el("td"), el("td")];
        return el("tr", {}, el("th", { scope: "row" }, el("span", { class: `live-key live-${key}` }), name), rows[name]);
      })));
    const stiff = el("p", { class: "live-note" });
    const status = Live.ui.status();
    stage.append(
      board,
      el("div", { class: "live-controls" }, lam.node, eta.node, pulling.node, scrub.node,
        el("div", { class: "live-buttons" }, play, reset)),
      el("div", { class: "live-results" }, table, stiff),
      status.node,
    );

    /** The point of a way that is shown, and the way up to it. */
    const upTo = (w) => w.points.slice(0, state.shown >= STEPS ? undefined : state.shown + 1);

    function draw() {
      const width = Live.ui.room(stage, 760);
      const height = Math.round(Math.max(330, Math.min(500, 0.78 * width)));
      p = Live.ui.plane({ width, height, ...RANGE });
      for (const task of ["A", "B"]) borders[task] = borders[task] || [0.15, 0.05].map((rise) => region(state[task], rise));
      drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
      drawing.setAttribute("width", width);
      drawing.setAttribute("height", height);
      board.style.width = `${width}px`;
      drawing.replaceChildren(...picture(p));
      for (const task of ["A", "B"]) {
        const [x, y] = [p.x(state[task].w[0]), p.y(state[task].w[1])];
        handles[task].style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
        handles[task].setAttribute("aria-label", `${task}: the optimum of task ${task}, at ${where(state[task].w)}; the arrow keys move it`);
      }
      const share = (Math.log10(found.bound) + 2) / 6; // the ends of a range lie half a thumb inside
      bound.style.left = `calc(8px + ${share} * (100% - 16px))`;
      bound.classList.toggle("live-left", share > 0.6);
      for (const [name] of METHODS) {
        const w = found.ways[name];
        const at = upTo(w).at(-1);
        const losses = [state.A.loss(at), state.B.loss(at)];
        const lost = w.broken && state.shown >= w.steps;
        [...losses, losses[0] + losses[1]].forEach((loss, k) => (rows[name][k].textContent = lost ? "broken" : loss.toFixed(3)));
      }
      const lamF = found.F.map((f) => number(state.lam * f, 2));
      stiff.textContent = `EWC's springs: λF₁ = ${lamF[0]} across, λF₂ = ${lamF[1]} up and down; both of L2's: `
        + `${number(state.lam * found.springs.L2[0], 2)}. At η = ${number(state.eta, 2)} the explicit step of EWC's stiffest spring breaks beyond `
        + `λ = 2/(η max Ω) = ${number(found.bound, 3)}.`;
      drawing.setAttribute("aria-label", describe());
    }

    function picture(p) {
      const inside = { x: p.left, y: p.top, width: p.width - p.left - p.right, height: p.height - p.top - p.bottom };
      const g = svg("g", { "clip-path": `url(#${clip})` });
      for (const task of ["A", "B"])
        for (const border of borders[task]) g.append(svg("path", { class: `live-region live-task-${task.toLowerCase()}`, d: p.path(border) + "Z" }));
      // what EWC believes of A: the ellipse where the springs without lambda have cost 0.05
      const radius = found.F.map((f) => Math.sqrt(0.1 / f));
      g.append(svg("ellipse", {
        class: "live-belief", cx: p.x(found.star[0]), cy: p.y(found.star[1]),
        rx: p.x(radius[0]) - p.x(0), ry: p.y(0) - p.y(radius[1]),
      }));
      g.append(svg("line", { class: "live-wall", x1: p.x(found.star[0]), x2: p.x(found.star[0]), y1: p.top, y2: p.height - p.bottom }));
      g.append(svg("line", { class: "live-wall", x1: p.left, x2: p.width - p.right, y1: p.y(found.star[1]), y2: p.y(found.star[1]) }));
      const end = upTo(found.ways.EWC).at(-1);
      const tip = [p.x(end[0]), p.y(end[1])];
      if (!found.ways.EWC.broken || state.shown < found.ways.EWC.steps) {
        g.append(coil([p.x(found.star[0]), tip[1]], tip, state.lam * found.F[0]));
        g.append(coil([tip[0], p.y(found.star[1])], tip, state.lam * found.F[1]));
      }
      for (const task of ["A", "B"])
        g.append(svg("text", {
          class: "live-label", x: p.x(state[task].w[0]), y: p.y(state[task].w[1]) + 30, "text-anchor": "middle",
        }, `low error on ${task}`));
      for (const [name, key] of METHODS) {
        const points = upTo(found.ways[name]);
        g.append(svg("path", { class: `live-way live-${key}`, d: p.path(points) }));
        const [x, y] = points.at(-1);
        g.append(svg("circle", { class: `live-end live-${key}`, cx: p.x(x), cy: p.y(y), r: 6 }));
      }
      const ticks = (range, by) => {
        const out = [];
        for (let v = Math.ceil(range[0] / by) * by; v <= range[1]; v += by) out.push([v, minus(String(v))]);
        return out;
      };
      return [
        svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", inside))),
        Live.ui.axes(p, { xTicks: ticks(RANGE.x, 1), yTicks: ticks(RANGE.y, 2), xName: "first weight θ₁", yName: "second weight θ₂" }),
        g,
      ];
    }

    const where = (w) => w.map((v) => minus(v.toFixed(1))).join(" and ");

    function describe() {
      const ends = METHODS.map(([name]) => {
        const w = found.ways[name];
        return w.broken ? `${name} broke` : `${name} ends at ${where(w.end)}, with loss ${state.A.loss(w.end).toFixed(2)} on A and ${state.B.loss(w.end).toFixed(2)} on B`;
      });
      return `The plane of the two weights, with the regions of low error of A around ${where(state.A.w)} and of B around ${where(state.B.w)}. ${ends.join("; ")}.`;
    }

    function tell() {
      const { EWC, L2 } = found.ways;
      const name = EWC.broken ? "EWC" : L2.broken ? "L2" : null;
      const step = state.implicit ? "The implicit step" : "The explicit step";
      let text = `${step} at λ = ${number(state.lam, 2)}: `;
      if (name) {
        text += `${name} broke after ${found.ways[name].steps} steps, since ηλ max Ω = `
          + `${number(state.eta * state.lam * Math.max(...found.springs[name]), 3)}, and an explicit step needs less than 2.`;
      } else if (EWC.unsettled) {
        text += "EWC swings to and fro and does not come to rest.";
      } else {
        const loss = (w) => [state.A.loss(w.end).toFixed(2), state.B.loss(w.end).toFixed(2)];
        text += METHODS.map(([m]) => `${m} ends with loss ${loss(found.ways[m])[0]} on A and ${loss(found.ways[m])[1]} on B`).join("; ") + ".";
      }
      status.say(text);
    }
    tell();
    return draw;
  });

  Live.springs = { way, solve, region };
})(window.Live);
