// One dream, as envs/dream.py and models/dream.py dream it: M's step, C and V's decoder in ONNX Runtime Web. No view.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that a static host does not send

/** Random numbers that depend on a seed of 32 bits alone (mulberry32; Box and Muller's normals). */
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let x = this.state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** So many normal numbers, then so many uniform ones. */
  noise([normals, uniforms]) {
    return Float32Array.from({ length: normals + uniforms }, (_, i) => (i < normals ? this.normal() : this.uniform()));
  }
}

/** The weights of a mixture's components at a temperature: the softmax of log weights / temperature. */
export function mixtureWeights(logWeights, temperature) {
  const largest = Math.max(...logWeights);
  const weights = logWeights.map((weight) => Math.exp((weight - largest) / temperature));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

/** The log weights of the mixture that number i of the latent is drawn from. */
export function logWeightsOf(prediction, i, facts) {
  const { log_weights } = prediction;
  if (facts.jointMixture) return Array.from(log_weights);
  return Array.from({ length: facts.mixtures }, (_, g) => log_weights[g * facts.latent + i]);
}

/** The next latent: models/mdrnn.py, sample_mixture. The noise is as Random's `noise` makes it. */
export function sampleMixture(prediction, noise, temperature, facts) {
  const root = Math.sqrt(temperature);
  let component;
  return Float32Array.from({ length: facts.latent }, (_, i) => {
    if (i === 0 || !facts.jointMixture) {
      const weights = mixtureWeights(logWeightsOf(prediction, i, facts), temperature);
      component = chooseComponent(weights, noise[facts.latent + i]);
    }
    const at = component * facts.latent + i;
    return prediction.means[at] + root * Math.exp(prediction.log_sigmas[at]) * noise[i];
  });
}

function chooseComponent(weights, uniform) {
  let component = 0;
  let sum = weights[0];
  while (component < weights.length - 1 && uniform >= sum) sum += weights[++component];
  return component;
}

export class Dream {
  /** Loads the models of a game and the moments that its dreams begin at, from the game's folder beside this file. */
  static async open(game) {
    const [facts, ...buffers] = await Promise.all([
      load(`${game}/dream.json`).then((file) => file.json()),
      ...["starts.bin", "M.onnx", "C.onnx", "V.onnx"].map((name) =>
        load(`${game}/${name}`).then((file) => file.arrayBuffer()),
      ),
    ]);
    const [starts, ...models] = buffers;
    const sessions = [];
    for (const model of models) sessions.push(await ort.InferenceSession.create(model));
    return new Dream(facts, new Float32Array(starts), sessions);
  }

  constructor(facts, starts, [memory, controller, vision]) {
    Object.assign(this, { facts, starts, memory, controller, vision });
  }

  /** Begins at one of the starts, a number from 0 to facts.starts - 1; the latent is drawn from V's posterior. */
  begin(start, random) {
    const { latent, hidden } = this.facts;
    let at = start * 2 * (latent + hidden);
    const take = (count) => this.starts.slice(at, (at += count));
    const [mu, logsigma] = [take(latent), take(latent)];
    this.beginAt(
      mu.map((mean, i) => mean + Math.exp(logsigma[i]) * random.normal()),
      take(hidden),
      take(hidden),
    );
  }

  /** Begins at a latent and M's state before it. */
  beginAt(latent, hidden, cell) {
    Object.assign(this, { latent, hidden, cell, steps: 0, reward: 0, earned: 0, terminal: 0, ended: "" });
    this.prediction = undefined;
  }

  /** C's action. */
  async act() {
    const { latent, hidden, cell } = this;
    const { actions } = await this.controller.run(rows({ latents: latent, hidden, cell }));
    return actions.data;
  }

  /** Takes the action in this moment. The noise chooses the next latent; afterwards `ended` says why the dream is
   * over, if it is. */
  async step(action, noise, temperature) {
    const { latent, hidden, cell, facts } = this;
    const results = await this.memory.run(rows({ latents: latent, actions: action, hidden, cell }));
    const prediction = Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, tensor.data]));
    this.prediction = prediction;
    this.latent = sampleMixture(prediction, noise, temperature, facts);
    this.hidden = prediction.next_hidden;
    this.cell = prediction.next_cell;
    this.terminal = 1 / (1 + Math.exp(-prediction.terminal_logit[0]));
    this.reward = facts.stepReward ?? prediction.reward[0];
    this.earned += this.reward - facts.idleReward;
    this.steps += 1;
    if (prediction.terminal_logit[0] > 0) this.ended = `M predicts ${facts.end}`;
    else if (facts.wholeGain !== null && this.earned >= facts.wholeGain) this.ended = "all is earned that there is";
    else if (this.steps >= facts.maxSteps) this.ended = "the time is over";
  }

  /** What V makes of the latent, 64 x 64. */
  async picture() {
    const { picture } = await this.vision.run(rows({ latents: this.latent }));
    return new ImageData(new Uint8ClampedArray(picture.data), 64, 64);
  }
}

/** The games that there are dreams of: names and titles. */
export const listGames = () => load("games.json").then((file) => file.json());

async function load(name) {
  const file = await fetch(new URL(name, import.meta.url));
  if (!file.ok) throw new Error(`${name}: ${file.status} ${file.statusText}`);
  return file;
}

function rows(vectors) {
  const tensor = (numbers) => new ort.Tensor("float32", Float32Array.from(numbers), [1, numbers.length]);
  return Object.fromEntries(Object.entries(vectors).map(([name, numbers]) => [name, tensor(numbers)]));
}
