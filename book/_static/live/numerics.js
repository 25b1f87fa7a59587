/* The mathematics of the live figures: the formulas of the book, for one small network and in plain loops.
 *
 * Everything here has a twin in the Python package, named beside it, and a browser test holds the two equal. A network is a
 * pure function of one flat vector theta [P]; matrices are flat arrays in row order, x [n, D] is x[i * D + d].
 */
"use strict";
window.Live = window.Live || {};

(function (Live) {
  // random numbers -------------------------------------------------------------------------------------------------------

  /** mulberry32: uniform numbers in [0, 1), the same on every machine for the same seed. */
  function mulberry32(seed) {
    let state = seed >>> 0;
    return function () {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** 0 .. n-1 in random order (Fisher and Yates). */
  function shuffled(n, random) {
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // what the outputs mean: clbook.likelihood.Categorical ----------------------------------------------------------------------

  /** softmax(f / T) over the outputs that count, written into p [C] from position `at`; returns log sum exp. */
  function softmax(f, p, at, C, mask, T) {
    let top = -Infinity;
    for (let c = 0; c < C; c++) if (mask[c]) top = Math.max(top, f[at + c] / T);
    let sum = 0;
    for (let c = 0; c < C; c++) sum += p[at + c] = mask[c] ? Math.exp(f[at + c] / T - top) : 0;
    for (let c = 0; c < C; c++) p[at + c] /= sum;
    return top + Math.log(sum);
  }

  /** The masked cross-entropy, - 1/n sum log p(y | x), and its gradient with respect to the outputs: (p - onehot(y)) / n. */
  function crossEntropy(f, C, batch) {
    const n = batch.y.length;
    const signal = new Float64Array(n * C);
    let loss = 0;
    for (let i = 0; i < n; i++) {
      const logSum = softmax(f, signal, i * C, C, batch.masks[i], 1);
      loss += (logSum - f[i * C + batch.y[i]]) / n;
      signal[i * C + batch.y[i]] -= 1;
    }
    for (let k = 0; k < signal.length; k++) signal[k] /= n;
    return { loss, signal };
  }

  /** clbook.likelihood.distillation: - sum_g mean_n sum_c q log p, q of the recorded outputs over `old`, p of f over `now`. */
  function distillation(f, recorded, C, groups, T) {
    const n = f.length / C;
    const signal = new Float64Array(n * C);
    const p = new Float64Array(C);
    const q = new Float64Array(C);
    let loss = 0;
    for (const group of groups) {
      for (let i = 0; i < n; i++) {
        const logSum = softmax(f.subarray(i * C, i * C + C), p, 0, C, group.now, T);
        softmax(recorded.subarray(i * C, i * C + C), q, 0, C, group.old, T);
        for (let c = 0; c < C; c++) {
          if (q[c] > 0) loss -= (q[c] * (f[i * C + c] / T - logSum)) / n;
          signal[i * C + c] += (p[c] - q[c]) / (n * T);
        }
      }
    }
    return { loss, signal };
  }

  // the network: clbook.mlp and clbook.outer --------------------------------------------------------------------------------

  /** D - H - C with a ReLU between: f = W2 relu(W1 x + b1) + b2, theta = (W1 [H, D], b1 [H], W2 [C, H], b2 [C]). */
  class MLP {
    constructor(D, H, C) {
      Object.assign(this, { D, H, C });
      this.ends = [0, H * D, H * D + H, H * D + H + C * H, H * D + H + C * H + C];
      this.P = this.ends[4];
    }

    /** A fresh theta, uniform in +-1/sqrt(inputs of the layer), as PyTorch's Linear is. */
    init(random) {
      const theta = new Float64Array(this.P);
      for (let k = 0; k < this.P; k++) {
        const bound = 1 / Math.sqrt(k < this.ends[2] ? this.D : this.H);
        theta[k] = bound * (2 * random() - 1);
      }
      return theta;
    }

    /** theta cut into W1, b1, W2, b2; views, no copies. */
    parts(theta) {
      return [0, 1, 2, 3].map((k) => theta.subarray(this.ends[k], this.ends[k + 1]));
    }

    /** The forward pass: x [n, D], a [n, H] = relu(W1 x + b1), f [n, C] = W2 a + b2. */
    forward(theta, x) {
      const { D, H, C } = this;
      const [W1, b1, W2, b2] = this.parts(theta);
      const n = x.length / D;
      const a = linear(W1, b1, x, n, D, H);
      for (let k = 0; k < a.length; k++) if (a[k] < 0) a[k] = 0;
      return { n, x, a, f: linear(W2, b2, a, n, H, C) };
    }

    /** Signals back through the last layer and the ReLU: gZ [n, H] = (gF W2) where a > 0. */
    back(theta, pass, gF) {
      const { H, C } = this;
      const W2 = this.parts(theta)[2];
      const gZ = new Float64Array(pass.n * H);
      for (let i = 0; i < pass.n; i++)
        for (let c = 0; c < C; c++) {
          const g = gF[i * C + c];
          if (g !== 0) for (let h = 0; h < H; h++) if (pass.a[i * H + h] > 0) gZ[i * H + h] += g * W2[c * H + h];
        }
      return gZ;
    }

    /** sum_n g_n a_n^T and sum_n g_n of both layers, as one vector [P]: clbook.outer. */
    assemble(x, a, gZ, gF) {
      const out = new Float64Array(this.P);
      const [W1, b1, W2, b2] = this.parts(out);
      outer(gZ, x, this.H, this.D, W1, b1);
      outer(gF, a, this.C, this.H, W2, b2);
      return out;
    }

    /** The gradient [P] of a loss whose gradient with respect to the outputs is gF [n, C]. */
    gradient(theta, pass, gF) {
      return this.assemble(pass.x, pass.a, this.back(theta, pass, gF), gF);
    }
  }

  /** z [n, to] = x W^T + b. */
  function linear(W, b, x, n, from, to) {
    const z = new Float64Array(n * to);
    for (let i = 0; i < n; i++)
      for (let o = 0; o < to; o++) {
        let sum = b[o];
        for (let k = 0; k < from; k++) sum += W[o * from + k] * x[i * from + k];
        z[i * to + o] = sum;
      }
    return z;
  }

  /** W += G^T A and b += sum_n g_n, for G [n, to] and A [n, from]. */
  function outer(G, A, to, from, W, b) {
    const n = G.length / to;
    for (let i = 0; i < n; i++)
      for (let o = 0; o < to; o++) {
        const g = G[i * to + o];
        if (g === 0) continue;
        b[o] += g;
        for (let k = 0; k < from; k++) W[o * from + k] += g * A[i * from + k];
      }
  }

  // importance: clbook.importance and clbook.methods.mas -----------------------------------------------------------------------

  const square = (v) => v.map((u) => u * u);
  const absolute = (v) => v.map(Math.abs);

  /** The diagonal of the Fisher information [P], a mean over the samples: "exact", "empirical" or "batched". */
  function fisher(net, theta, data, estimator, batchSize) {
    return estimator === "batched" ? batched(net, theta, data, batchSize) : perSample(net, theta, data, estimator);
  }

  /** exact: 1/N sum_n sum_c p(c | x_n) (d log p(c | x_n))^2; empirical: 1/N sum_n (d log p(y_n | x_n))^2. */
  function perSample(net, theta, data, estimator) {
    const { C, H } = net;
    const pass = net.forward(theta, data.x);
    const n = pass.n;
    const p = new Float64Array(n * C);
    for (let i = 0; i < n; i++) softmax(pass.f, p, i * C, C, data.masks[i], 1);
    const sumZ = new Float64Array(n * H);
    const sumF = new Float64Array(n * C);
    for (let c = 0; c < C; c++) {
      const weight = (i) => (estimator === "exact" ? p[i * C + c] : Number(data.y[i] === c));
      const gF = new Float64Array(n * C); // onehot(c) - p where this label has any weight
      for (let i = 0; i < n; i++)
        if (weight(i) > 0) for (let k = 0; k < C; k++) gF[i * C + k] = (k === c) - p[i * C + k];
      const gZ = net.back(theta, pass, gF);
      for (let i = 0; i < n; i++) {
        for (let k = 0; k < C; k++) sumF[i * C + k] += weight(i) * gF[i * C + k] ** 2;
        for (let h = 0; h < H; h++) sumZ[i * H + h] += weight(i) * gZ[i * H + h] ** 2;
      }
    }
    return net.assemble(square(pass.x), square(pass.a), sumZ, sumF).map((v) => v / n);
  }

  /** batched: the mean over batches of the squared gradient of the batch's mean loss. What cancels within a batch is gone. */
  function batched(net, theta, data, batchSize) {
    const N = data.y.length;
    const sum = new Float64Array(net.P);
    let batches = 0;
    for (let start = 0; start < N; start += batchSize, batches++) {
      const g = lossGradient(net, theta, rowsOf(net, data, start, Math.min(start + batchSize, N))).gradient;
      for (let k = 0; k < net.P; k++) sum[k] += g[k] * g[k];
    }
    return sum.map((v) => v / batches);
  }

  /** Memory aware synapses: 1/N sum_n |d ||f(x_n)||^2 / d theta| over the outputs that count. */
  function masImportance(net, theta, data) {
    const pass = net.forward(theta, data.x);
    const gF = pass.f.map((f, k) => (data.masks[Math.floor(k / net.C)][k % net.C] ? 2 * f : 0));
    const gZ = net.back(theta, pass, gF);
    return net.assemble(absolute(pass.x), absolute(pass.a), absolute(gZ), absolute(gF)).map((v) => v / pass.n);
  }

  /** The loss of a batch and its gradient [P]. */
  function lossGradient(net, theta, batch) {
    const pass = net.forward(theta, batch.x);
    const { loss, signal } = crossEntropy(pass.f, net.C, batch);
    return { loss, gradient: net.gradient(theta, pass, signal) };
  }

  function rowsOf(net, data, from, to) {
    const x = data.x.subarray(from * net.D, to * net.D);
    return { x, y: data.y.slice(from, to), masks: data.masks.slice(from, to) };
  }

  /** Pearson's correlation of two vectors. */
  function correlation(u, v) {
    const mean = (w) => w.reduce((s, x) => s + x, 0) / w.length;
    const [mu, mv] = [mean(u), mean(v)];
    let [uv, uu, vv] = [0, 0, 0];
    for (let k = 0; k < u.length; k++) {
      uv += (u[k] - mu) * (v[k] - mv);
      uu += (u[k] - mu) ** 2;
      vv += (v[k] - mv) ** 2;
    }
    return uv / Math.sqrt(uu * vv);
  }

  // springs: clbook.method -------------------------------------------------------------------------------------------------

  /** (lam / 2) sum_i Omega_i (theta_i - theta*_i)^2. */
  function penalty(theta, spring, lam) {
    let sum = 0;
    for (let k = 0; k < theta.length; k++) sum += spring.omega[k] * (theta[k] - spring.star[k]) ** 2;
    return (lam / 2) * sum;
  }

  /** The gradient of the penalty: lam Omega_i (theta_i - theta*_i). */
  function pull(theta, spring, lam) {
    return theta.map((t, k) => lam * spring.omega[k] * (t - spring.star[k]));
  }

  /** The implicit step of the springs: theta + w (theta* - theta) with w = s Omega / (1 + s Omega), s = eta lam. */
  function proximal(theta, spring, s) {
    return theta.map((t, k) => {
      const pulls = s * spring.omega[k];
      return t + (pulls / (1 + pulls)) * (spring.star[k] - t);
    });
  }

  /** Two springs as one: the stiffnesses added, resting at the weighted mean of the two places. */
  function merge(spring, omega, theta) {
    const total = omega.map((o, k) => o + spring.omega[k]);
    const star = theta.map((t, k) => {
      const weight = total[k] > 0 ? omega[k] / total[k] : 1;
      return spring.star[k] + weight * (t - spring.star[k]);
    });
    return { omega: total, star };
  }

  // two weights: the problem of notebook 3 -----------------------------------------------------------------------------------

  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));

  /** p(y = 1 | x) = sigmoid(theta . x), with labels drawn at w and averaged over all draws: the loss is least at theta = w. */
  class TwoWeights {
    constructor(x, w) {
      this.x = x;
      this.n = x.length / 2;
      this.moveTo(w);
    }

    moveTo(w) {
      this.w = w;
      this.q = Float64Array.from({ length: this.n }, (_, i) => sigmoid(this.logit(i, w)));
    }

    logit(i, theta) {
      return this.x[2 * i] * theta[0] + this.x[2 * i + 1] * theta[1];
    }

    /** - 1/n sum_n [q log sigmoid(z) + (1 - q) log sigmoid(-z)]. */
    loss(theta) {
      let sum = 0;
      for (let i = 0; i < this.n; i++) {
        const z = this.logit(i, theta);
        sum += softplus(z) - this.q[i] * z;
      }
      return sum / this.n;
    }

    /** 1/n sum_n (sigmoid(z) - q) x. */
    gradient(theta) {
      const g = [0, 0];
      for (let i = 0; i < this.n; i++) {
        const r = sigmoid(this.logit(i, theta)) - this.q[i];
        g[0] += (r * this.x[2 * i]) / this.n;
        g[1] += (r * this.x[2 * i + 1]) / this.n;
      }
      return g;
    }

    /** The diagonal Fisher, 1/n sum_n p (1 - p) x_i^2. */
    fisher(theta) {
      const F = [0, 0];
      for (let i = 0; i < this.n; i++) {
        const p = sigmoid(this.logit(i, theta));
        F[0] += (p * (1 - p) * this.x[2 * i] ** 2) / this.n;
        F[1] += (p * (1 - p) * this.x[2 * i + 1] ** 2) / this.n;
      }
      return F;
    }
  }

  /** One step of descent on a task's loss with springs beside it. */
  function springStep(theta, task, spring, { eta, lam, implicit }) {
    const g = task.gradient(theta);
    const force = implicit ? [0, 0] : pull(theta, spring, lam);
    const moved = theta.map((t, k) => t - eta * (g[k] + force[k]));
    return implicit ? proximal(moved, spring, eta * lam) : moved;
  }

  Object.assign(Live, {
    mulberry32, shuffled, softmax, crossEntropy, distillation, MLP, fisher, masImportance, lossGradient, correlation,
    penalty, pull, proximal, merge, sigmoid, TwoWeights, springStep,
  });
})(window.Live);
