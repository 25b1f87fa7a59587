/* Importance under the microscope: the stiffness of every weight by four measures, and how gradients cancel in a batch. */
"use strict";

(function (Live) {
  const { el, svg, number } = Live.ui;
  const N = 1024; // training digits looked at, so that batches come out even
  const STAGES = [0, 10, 30, 100, 300, 1000]; // steps of training
  const SIZES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((e) => 2 ** e);
  const MAPS = [
    ["exact", "exact Fisher"], ["empirical", "empirical Fisher"], ["batched", "batched Fisher"], ["mas", "MAS"],
  ];
  const COLUMNS = 8; // hidden units in a row of a map

  /** A network that has learned all ten digits for so many steps; earlier stages are kept. */
  function learner() {
    const digits = Live.digits();
    const scenario = Live.split(digits, [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], "task");
    const net = new Live.MLP(64, 32, 10);
    const run = new Live.Run({ net, scenario, method: new Live.methods.Finetune(), seed: 1, steps: STAGES.at(-1) + 1, lr: 0.2 });
    const kept = new Map([[0, run.theta]]);
    const data = Live.take(digits.train, [...Array(N).keys()], new Uint8Array(10).fill(1));
    return {
      net, data,
      /** theta after so many steps; null if that needs more than the time left. */
      theta(stage, until = Infinity) {
        while (run.done < stage) {
          if (performance.now() > until) return null;
          run.step();
          if (STAGES.includes(run.done)) kept.set(run.done, run.theta);
        }
        return kept.get(stage);
      },
    };
  }

  /** The gradient of the loss of each sample with respect to one weight W1[unit, pixel]: g_n x_n, in the order of the data. */
  function perSample(net, theta, data, unit, pixel) {
    const pass = net.forward(theta, data.x);
    const { signal } = Live.crossEntropy(pass.f, net.C, data);
    const gZ = net.back(theta, pass, signal.map((g) => g * pass.n)); // a mean over samples, undone
    return Float64Array.from({ length: pass.n }, (_, i) => gZ[i * net.H + unit] * data.x[i * net.D + pixel]);
  }

  Live.ui.figure("importance", "Importance under the microscope, a live figure", (stage) => {
    const school = learner();
    const { net, data } = school;
    const state = { stage: 300, size: 32, unit: 0, pixel: 0 };
    let theta = null;
    let found = {}; // the importances shown, by name
    let gradients = null; // of the weight under the lens
    let correlations = new Map(); // of the batched Fisher with the exact one, by batch size
    let frame = 0;

    // controls
    const size = Live.ui.slider({
      label: "Batch size of the batched Fisher", min: 0, max: 10, step: 1, value: 5, words: (v) => String(2 ** v),
      oninput: (v) => {
        state.size = 2 ** v;
        if (!theta) return;
        batched();
        draw();
        tell();
      },
    });
    const trained = Live.ui.slider({
      label: "Steps of training", min: 0, max: STAGES.length - 1, step: 1, value: STAGES.indexOf(state.stage),
      words: (v) => String(STAGES[v]),
      oninput: (v) => {
        state.stage = STAGES[v];
        if (!theta) return;
        measure();
        draw();
        tell();
      },
    });
    const look = () => {
      if (!theta) return;
      gradients = perSample(net, theta, data, state.unit, state.pixel);
      draw();
      tell();
    };
    const unit = Live.ui.slider({
      label: "Under the lens: hidden unit", min: 1, max: net.H, step: 1, value: 1, words: String,
      oninput: (v) => look((state.unit = v - 1)),
    });
    const pixel = Live.ui.slider({
      label: "and its weight from pixel", min: 1, max: net.D, step: 1, value: 1,
      words: (v) => `row ${Math.floor((v - 1) / 8) + 1}, column ${((v - 1) % 8) + 1}`,
      oninput: (v) => look((state.pixel = v - 1)),
    });

    // what it shows
    const maps = {};
    const gallery = el("div", { class: "live-gallery" }, MAPS.map(([key, title]) => {
      const canvas = el("canvas", { role: "img", onclick: (event) => pick(event) });
      const words = el("p", { class: "live-note" });
      maps[key] = { canvas, words };
      return el("div", {}, el("p", { class: "live-title" }, title), canvas, words);
    }));
    const bars = svg("svg", { role: "img", class: "live-drawing" });
    const barsNote = el("p", { class: "live-note" });
    const curve = svg("svg", { role: "img", class: "live-drawing" });
    const status = Live.ui.status();
    stage.append(
      el("div", { class: "live-controls" }, size.node, trained.node),
      el("div", { class: "live-results live-top" },
        el("div", {}, el("p", { class: "live-title" }, "Correlation with the exact Fisher"), curve),
        el("div", {}, el("p", { class: "live-title" }, "Gradients of one weight in the first batch"), bars, barsNote)),
      status.node,
      el("div", { class: "live-controls" }, unit.node, pixel.node),
      gallery,
    );

    // computing
    function measure() {
      theta = school.theta(state.stage);
      found = {
        exact: Live.fisher(net, theta, data, "exact"),
        empirical: Live.fisher(net, theta, data, "empirical"),
        mas: Live.masImportance(net, theta, data),
      };
      correlations = new Map();
      gradients = perSample(net, theta, data, state.unit, state.pixel);
      batched();
      complete();
    }

    function batched() {
      found.batched = Live.fisher(net, theta, data, "batched", state.size);
      correlations.set(state.size, Live.correlation(found.exact, found.batched));
    }

    /** The rest of the curve, one batch size a frame, so that a slider never waits for it. */
    function complete() {
      cancelAnimationFrame(frame);
      stage.dataset.state = "busy";
      const more = () => {
        const missing = SIZES.find((b) => !correlations.has(b));
        if (missing === undefined) {
          stage.dataset.state = "ready";
          return;
        }
        correlations.set(missing, Live.correlation(found.exact, Live.fisher(net, theta, data, "batched", missing)));
        drawCurve();
        frame = requestAnimationFrame(more);
      };
      frame = requestAnimationFrame(more);
    }

    // drawing
    /** Where things lie in a map: the incoming weights of each hidden unit as an 8x8 tile, below them the outgoing ones. */
    function measures() {
      const width = Live.ui.room(maps.exact.canvas.parentElement, 400);
      const fine = window.devicePixelRatio || 1; // whole pixels of the screen
      const dot = Math.max(1, Math.floor((fine * (width - COLUMNS - 1)) / (8 * COLUMNS)) / fine);
      const tile = 8 * dot + 1;
      const top = (net.H / COLUMNS) * tile + 5;
      const cell = Math.floor((fine * COLUMNS * tile) / net.H) / fine;
      return { dot, tile, width: COLUMNS * tile + 1, top, cell, height: top + net.C * cell };
    }

    function pick(event) {
      const m = measures();
      const box = event.target.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) * (m.width / box.width), (event.clientY - box.top) * (m.height / box.height)];
      const [column, row] = [Math.floor(x / m.tile), Math.floor(y / m.tile)];
      if (column >= COLUMNS || row >= net.H / COLUMNS) return;
      const inside = (v) => Math.min(7, Math.floor((v % m.tile) / m.dot));
      state.unit = row * COLUMNS + column;
      state.pixel = 8 * inside(y) + inside(x);
      [unit.value, pixel.value] = [state.unit + 1, state.pixel + 1];
      look();
    }

    function drawMap(key, paint) {
      const m = measures();
      const omega = found[key];
      const context = Live.ui.sheet(maps[key].canvas, m.width, m.height);
      const most = [omega.subarray(0, net.ends[1]), omega.subarray(net.ends[2], net.ends[3])].map((w) => Math.max(...w) || 1);
      // each layer on a scale of its own; the root shows the small ones
      const fill = (k) => `rgb(${paint(Math.sqrt(omega[k] / most[k < net.ends[1] ? 0 : 1])).map(Math.round).join(" ")})`;
      const corner = (h) => [1 + (h % COLUMNS) * m.tile, 1 + Math.floor(h / COLUMNS) * m.tile];
      for (let h = 0; h < net.H; h++)
        for (let d = 0; d < net.D; d++) {
          context.fillStyle = fill(h * net.D + d);
          const [x, y] = corner(h);
          context.fillRect(x + (d % 8) * m.dot, y + Math.floor(d / 8) * m.dot, m.dot, m.dot);
        }
      for (let c = 0; c < net.C; c++)
        for (let h = 0; h < net.H; h++) {
          context.fillStyle = fill(net.ends[2] + c * net.H + h);
          context.fillRect(1 + h * m.cell, m.top + c * m.cell, m.cell, m.cell);
        }
      const [x, y] = corner(state.unit);
      context.strokeStyle = Live.ui.colour(stage, "--live-mark");
      context.lineWidth = 2;
      context.strokeRect(x - 0.5, y - 0.5, m.tile, m.tile);
      context.strokeRect(x + (state.pixel % 8) * m.dot - 1, y + Math.floor(state.pixel / 8) * m.dot - 1, m.dot + 2, m.dot + 2);
    }

    function draw() {
      if (!theta) return outline();
      const paint = Live.ui.ramp(stage);
      const place = state.unit * net.D + state.pixel;
      for (const [key, title] of MAPS) {
        drawMap(key, paint);
        const like = key === "exact" ? "the measure of all" : `correlation ${number(Live.correlation(found.exact, found[key]), 2)}`;
        const total = found[key].reduce((a, b) => a + b, 0);
        maps[key].words.textContent = `${like}; sum ${number(total, 2)}; under the lens ${number(found[key][place], 2)}`;
        maps[key].canvas.setAttribute("aria-label", `Map of all weights, ${title}: ${maps[key].words.textContent}`);
      }
      drawBars();
      drawCurve();
    }

    /** The room that everything will take, while the network still learns. */
    function outline() {
      const { width, height } = measures();
      for (const { canvas, words } of Object.values(maps)) {
        Live.ui.sheet(canvas, width, height);
        canvas.setAttribute("aria-label", "The network is learning.");
        words.textContent = "…";
      }
      bars.setAttribute("height", 170);
      curve.setAttribute("height", 200);
    }

    function drawBars() {
      const batch = gradients.subarray(0, state.size);
      const mean = batch.reduce((a, b) => a + b, 0) / state.size;
      const squares = batch.reduce((a, b) => a + b * b, 0) / state.size;
      const most = batch.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
      const width = Live.ui.room(bars.parentElement, 400);
      const p = Live.ui.plane({ width, height: 170, x: [0, state.size], y: [-1.1 * most, 1.1 * most], left: 60, bottom: 24 });
      bars.setAttribute("viewBox", `0 0 ${width} 170`);
      bars.setAttribute("width", width);
      bars.setAttribute("height", 170);
      const thick = Math.max(1, 0.7 * (p.x(1) - p.x(0)));
      bars.replaceChildren(
        Live.ui.axes(p, { xTicks: [], yTicks: [-most, 0, most].map((v) => [v, number(v, 2)]), xName: "digits of the batch", yName: "" }),
        svg("g", {}, Array.from(batch, (g, i) => svg("line", {
          class: g < 0 ? "live-minus" : "live-plus", "stroke-width": thick, x1: p.x(i + 0.5), x2: p.x(i + 0.5), y1: p.y(0), y2: p.y(g),
        }))),
        svg("line", { class: "live-mean", x1: p.left, x2: width - p.right, y1: p.y(mean), y2: p.y(mean) }),
      );
      const ratio = mean === 0 ? "" : `, ${number(squares / mean ** 2, 2)} times less`;
      const text = squares === 0 ? "All gradients of this weight are zero here: choose another."
        : `Mean of the squares ${number(squares, 2)}; square of the mean (the line) ${number(mean ** 2, 2)}${state.size > 1 ? ratio : ": with one sample they are the same"}.`;
      barsNote.textContent = text;
      bars.setAttribute("aria-label", `The gradients of this weight for ${state.size} digits. ${text}`);
    }

    function drawCurve() {
      const width = Live.ui.room(curve.parentElement, 400);
      const p = Live.ui.plane({ width, height: 200, x: [-0.3, 10.3], y: [0, 1.03], left: 48 });
      curve.setAttribute("viewBox", `0 0 ${width} 200`);
      curve.setAttribute("width", width);
      curve.setAttribute("height", 200);
      const points = SIZES.flatMap((b, e) => (correlations.has(b) ? [[e, correlations.get(b)]] : []));
      const mas = Live.correlation(found.exact, found.mas);
      curve.replaceChildren(
        Live.ui.axes(p, {
          xTicks: [0, 2, 4, 6, 8, 10].map((e) => [e, String(2 ** e)]), yTicks: [0, 0.5, 1].map((v) => [v, String(v)]),
          xName: "batch size", yName: "correlation",
        }),
        svg("line", { class: "live-level live-mas", x1: p.left, x2: width - p.right, y1: p.y(mas), y2: p.y(mas) }),
        svg("text", { class: "live-label", x: p.left + 6, y: p.y(mas) + 16 }, "MAS"),
        svg("path", { class: "live-way live-ewc", d: p.path(points) }),
        ...points.map(([e, r]) => svg("circle", { class: "live-end live-ewc", cx: p.x(e), cy: p.y(r), r: 2 ** e === state.size ? 7 : 3.5 })),
        svg("text", { class: "live-label", x: p.x(0), y: p.y(points[0][1]) + 20 }, "batched"),
      );
      curve.setAttribute("aria-label", `Correlation with the exact Fisher. Batched: ${points.map(([e, r]) => `${r.toFixed(2)} at ${2 ** e}`).join(", ")}. MAS: ${mas.toFixed(2)}.`);
    }

    function tell() {
      const r = correlations.get(state.size);
      status.say(`After ${state.stage} steps, batches of ${state.size}: the batched Fisher has correlation ${r.toFixed(2)} with the exact one, `
        + `the empirical ${Live.correlation(found.exact, found.empirical).toFixed(2)}, MAS ${Live.correlation(found.exact, found.mas).toFixed(2)}.`);
    }

    /** Learn for a moment at a time, so that the page is there at once; then look, first at the weight that matters most. */
    function begin() {
      if (!school.theta(state.stage, performance.now() + 12)) return setTimeout(begin, 0);
      measure();
      const first = found.exact.subarray(0, net.ends[1]);
      const top = first.indexOf(first.reduce((a, b) => Math.max(a, b), 0));
      [state.unit, state.pixel] = [Math.floor(top / net.D), top % net.D];
      [unit.value, pixel.value] = [state.unit + 1, state.pixel + 1];
      gradients = perSample(net, theta, data, state.unit, state.pixel);
      draw();
      tell();
    }

    stage.dataset.state = "busy";
    begin();
    return draw;
  });

  Live.importance = { learner, perSample, N };
})(window.Live);
