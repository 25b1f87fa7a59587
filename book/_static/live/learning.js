/* Tasks that come one after another, the methods that remember, and the loop that trains them.
 *
 * The twins in Python: clbook.scenarios.split, clbook.methods (Finetune, L2, EWC, MAS, LwF, ER) and clbook.loop.train.
 */
"use strict";

(function (Live) {
  // the digits ---------------------------------------------------------------------------------------------------------------

  /** clbook.load("digits"): x [N, 64] in sixteenths, one letter a pixel from "a" = 0 to "q" = 16, and one numeral a label. */
  function unpack(pixels, labels) {
    const x = Float64Array.from(pixels, (letter) => (letter.charCodeAt(0) - 97) / 16);
    return { x, y: Array.from(labels, Number), D: 64 };
  }

  function digits() {
    const { train, test } = Live.data.digits;
    return { train: unpack(train.x, train.y), test: unpack(test.x, test.y) };
  }

  /** The rows of x and y named, as a batch; all of them use one mask unless masks are given. */
  function take(data, rows, mask) {
    const x = new Float64Array(rows.length * data.D);
    rows.forEach((row, i) => x.set(data.x.subarray(row * data.D, (row + 1) * data.D), i * data.D));
    return { x, y: Array.from(rows, (row) => data.y[row]), masks: Array(rows.length).fill(mask) };
  }

  // scenarios ------------------------------------------------------------------------------------------------------------------

  /** Split digits: task k holds the classes of groups[k]. kind "task", "domain" or "class" says which outputs count. */
  function split(data, groups, kind) {
    const C = kind === "domain" ? groups[0].length : 10;
    const output = (k, digit) => (kind === "domain" ? groups[k].indexOf(digit) : digit);
    const part = (from, k) => {
      const rows = [...from.y.keys()].filter((row) => groups[k].includes(from.y[row]));
      const { x, y } = take(from, rows);
      return { x, y: y.map((digit) => output(k, digit)), digits: y, D: from.D };
    };
    const own = groups.map((group, k) => {
      const mask = new Uint8Array(C);
      for (const digit of group) mask[output(k, digit)] = 1;
      return mask;
    });
    /** Which outputs count for task j once tasks 0 .. i have been seen. */
    const mask = (i, j) => {
      if (kind === "task") return own[j];
      return Uint8Array.from({ length: C }, (_, c) => Number(kind === "domain" || own.some((m, k) => k <= Math.max(i, j) && m[c])));
    };
    return { kind, C, groups, mask, train: groups.map((_, k) => part(data.train, k)), test: groups.map((_, k) => part(data.test, k)) };
  }

  // methods ----------------------------------------------------------------------------------------------------------------------

  /** Plain training, and the hooks that the other methods change; state belongs to the method's run. */
  class Finetune {
    constructor(strength) {
      this.strength = strength;
    }
    start() {}
    beforeTask() {}
    prepare(run, batch) {
      return batch;
    }
    /** The gradient [P] of this method's loss. */
    direction(run, batch) {
      return Live.lossGradient(run.net, run.theta, batch).gradient;
    }
    /** theta after a step. */
    afterStep(run, theta) {
      return theta;
    }
    afterTask() {}
  }

  /** loss = L_task + (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2, by the implicit step. */
  class Spring extends Finetune {
    start(run) {
      this.spring = { omega: new Float64Array(run.net.P), star: run.theta.slice() };
    }
    afterStep(run, theta) {
      return Live.proximal(theta, this.spring, run.lr * this.strength);
    }
    afterTask(run, task) {
      this.spring = this.carry(this.importance(run, task), run.theta.slice());
    }
  }

  class L2 extends Spring {
    importance(run) {
      return new Float64Array(run.net.P).fill(1);
    }
    carry(omega, star) {
      return { omega, star }; // the newest spring alone
    }
  }

  class EWC extends Spring {
    importance(run, task) {
      return Live.fisher(run.net, run.theta, task, "exact");
    }
    carry(omega, theta) {
      return Live.merge(this.spring, omega, theta); // one spring per task, as one
    }
  }

  class MAS extends Spring {
    importance(run, task) {
      return Live.masImportance(run.net, run.theta, task);
    }
    carry(omega, star) {
      return { omega: omega.map((o, k) => o + this.spring.omega[k]), star }; // summed, centred at the latest theta
    }
  }

  /** loss = L_new + lam L_old, L_old = - sum_{old tasks} 1/B sum_n sum_c q log p, q from the outputs before the task. */
  class LwF extends Finetune {
    start() {
      this.old = [];
      this.temperature = 2;
    }
    beforeTask(run, task) {
      if (!this.old.length) return;
      this.recorded = run.net.forward(run.theta, task.x).f;
      this.groups = this.old.map((old) => ({ old, now: widen(old, task.mask) }));
    }
    direction(run, batch) {
      const { net, theta } = run;
      const C = net.C;
      const pass = net.forward(theta, batch.x);
      const { signal } = Live.crossEntropy(pass.f, C, batch);
      if (this.old.length) {
        const recorded = new Float64Array(pass.f.length);
        batch.rows.forEach((row, i) => recorded.set(this.recorded.subarray(row * C, (row + 1) * C), i * C));
        const kept = Live.distillation(pass.f, recorded, C, this.groups, this.temperature);
        for (let k = 0; k < signal.length; k++) signal[k] += this.strength * kept.signal[k];
      }
      return net.gradient(theta, pass, signal);
    }
    afterTask(run, task) {
      this.old = [...this.old.map((old) => widen(old, task.mask)), task.mask];
    }
  }

  /** Outputs of an old task that compete with those of `mask` become one group with them. */
  function widen(old, mask) {
    return old.every((counts, c) => counts <= mask[c]) ? mask : old;
  }

  /** Experience replay: loss = (L_new + k L_old) / (1 + k) with k earlier tasks; `strength` samples of each class are kept. */
  class ER extends Finetune {
    start() {
      this.kept = []; // [task, row]
    }
    prepare(run, batch) {
      if (!this.kept.length) return batch;
      const drawn = batch.y.map(() => this.kept[Math.floor(run.random() * this.kept.length)]);
      return { ...batch, old: remembered(run.scenario, drawn, run.k) };
    }
    direction(run, batch) {
      const fresh = Live.lossGradient(run.net, run.theta, batch).gradient;
      if (!batch.old) return fresh;
      const old = Live.lossGradient(run.net, run.theta, batch.old).gradient;
      return fresh.map((g, p) => (g + run.k * old[p]) / (1 + run.k));
    }
    afterTask(run, task) {
      const count = {};
      for (const row of Live.shuffled(task.y.length, run.random)) {
        const y = task.y[row];
        count[y] = (count[y] || 0) + 1;
        if (count[y] <= this.strength) this.kept.push([run.k, row]);
      }
    }
  }

  /** Old samples [task, row], as they count while task k is trained. */
  function remembered(scenario, samples, k) {
    const D = scenario.train[0].D;
    const x = new Float64Array(samples.length * D);
    samples.forEach(([j, row], i) => x.set(scenario.train[j].x.subarray(row * D, (row + 1) * D), i * D));
    return {
      x,
      y: samples.map(([j, row]) => scenario.train[j].y[row]),
      masks: samples.map(([j]) => scenario.mask(k, j)),
    };
  }

  // the loop ---------------------------------------------------------------------------------------------------------------------

  /** One learner on a list of tasks, a step at a time, by plain SGD. R[i][j] is the accuracy on task j after task i. */
  class Run {
    constructor({ net, scenario, method, seed = 0, steps = 100, batchSize = 32, lr = 0.1, theta = null, order = null }) {
      Object.assign(this, { net, scenario, method, steps, batchSize, lr });
      this.random = Live.mulberry32(seed);
      this.theta = theta || net.init(this.random);
      this.order = order || ((k) => passes(scenario.train[k].y.length, steps * batchSize, this.random));
      this.R = [];
      this.curve = []; // {at, row}
      this.k = -1; // the task being learned
      this.done = 0; // steps of it taken
      method.start(this);
    }

    get learned() {
      return this.R.length;
    }

    /** Whether there is a task left to learn. */
    get more() {
      return this.learned < this.scenario.train.length;
    }

    /** One step of training; it begins and ends tasks where they begin and end. */
    step() {
      if (this.k < this.learned) this.begin(this.learned);
      const rows = Array.from(this.rows.slice(this.done * this.batchSize, (this.done + 1) * this.batchSize));
      const batch = this.method.prepare(this, { ...take(this.task, rows, this.task.mask), rows });
      const g = this.method.direction(this, batch);
      const moved = this.theta.map((t, p) => t - this.lr * g[p]);
      this.theta = this.method.afterStep(this, moved);
      this.done += 1;
      if (this.done === this.steps) this.end();
    }

    begin(k) {
      const mask = this.scenario.mask(k, k);
      const { x, y, D } = this.scenario.train[k];
      this.task = { x, y, D, mask, masks: Array(y.length).fill(mask) };
      [this.k, this.done, this.rows] = [k, 0, this.order(k)];
      this.method.beforeTask(this, this.task);
    }

    end() {
      this.method.afterTask(this, this.task);
      this.R.push(this.scenario.test.slice(0, this.k + 1).map((_, j) => this.accuracy(j)));
    }

    /** Note the accuracy on every task seen so far, for the curve. */
    measure() {
      const row = this.scenario.test.slice(0, this.k + 1).map((_, j) => this.accuracy(j));
      this.curve.push({ at: this.k + this.done / this.steps, row });
    }

    /** What the network answers on the test samples of task j: the output that is largest among those that count. */
    answers(j) {
      const { net } = this;
      const mask = this.scenario.mask(this.k, j);
      const { f, n } = net.forward(this.theta, this.scenario.test[j].x);
      return Array.from({ length: n }, (_, i) => {
        let best = -1;
        for (let c = 0; c < net.C; c++) if (mask[c] && (best < 0 || f[i * net.C + c] > f[i * net.C + best])) best = c;
        return best;
      });
    }

    accuracy(j) {
      const y = this.scenario.test[j].y;
      return this.answers(j).filter((answer, i) => answer === y[i]).length / y.length;
    }
  }

  /** Shuffled passes over n samples, one after the other, the last one cut. */
  function passes(n, length, random) {
    const order = new Int32Array(length);
    for (let at = 0; at < length; at += n) order.set(Live.shuffled(n, random).subarray(0, Math.min(n, length - at)), at);
    return order;
  }

  Object.assign(Live, { digits, take, split, Run, methods: { Finetune, L2, EWC, MAS, LwF, ER } });
})(window.Live);
