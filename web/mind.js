// What M sees, drawn: its mixture, the reward and the end that it predicts, the latent, its state.

import { logWeightsOf, mixtureWeights } from "./dream.js";

const LATENT_RANGE = 3; // a latent's numbers are about N(0, 1)
const BLUE = [47, 107, 214];
const ORANGE = [226, 98, 20];

const element = (id) => document.getElementById(id);

/** Makes room for the numbers of a game's models. */
export function describeMind({ stepReward, latent, mixtures, hidden }) {
  if (stepReward !== null) element("reward-note").textContent = "the same for each step";
  element("mixture").innerHTML = "<i></i>".repeat(mixtures);
  element("latent").innerHTML = "<i></i>".repeat(latent);
  const width = 2 ** Math.ceil(Math.log2(Math.sqrt(hidden)));
  for (const id of ["hidden", "cell"]) Object.assign(element(id), { width, height: Math.ceil(hidden / width) });
}

/** The moment of a dream, and its rewards so far. */
export function showMind(dream, rewards, temperature) {
  const weights = dream.prediction ? meanWeights(dream, temperature) : [];
  stretch(
    "mixture",
    Array.from({ length: dream.facts.mixtures }, (_, g) => weights[g] ?? 0),
  );
  stretch(
    "latent",
    Array.from(dream.latent, (x) => Math.max(-1, Math.min(1, x / LATENT_RANGE))),
  );
  element("reward").textContent = dream.reward.toFixed(2);
  element("end").textContent = `${(100 * dream.terminal).toFixed(1)} %`;
  element("end-bar").style.transform = `scaleX(${dream.terminal})`;
  const highest = Math.max(0.1, ...rewards);
  const lowest = Math.min(0, ...rewards);
  const y = (reward) => 38 - (36 * (reward - lowest)) / (highest - lowest);
  element("rewards").setAttribute("points", rewards.map((reward, i) => `${i},${y(reward).toFixed(1)}`).join(" "));
  paint("hidden", dream.hidden);
  paint("cell", dream.cell);
}

/** The weights at this temperature; with a mixture for each number of the latent, their mean over the numbers. */
function meanWeights({ facts, prediction }, temperature) {
  const count = facts.jointMixture ? 1 : facts.latent;
  const sums = new Array(facts.mixtures).fill(0);
  for (let i = 0; i < count; i++)
    mixtureWeights(logWeightsOf(prediction, i, facts), temperature).forEach((weight, g) => (sums[g] += weight));
  return sums.map((sum) => sum / count);
}

function stretch(id, values) {
  const bars = element(id).children;
  values.forEach((value, i) => (bars[i].style.transform = `scaleY(${value.toFixed(3)})`));
}

/** A texture of numbers: blue below zero, orange above. */
function paint(id, numbers) {
  const { width, height } = element(id);
  const image = new ImageData(width, height);
  numbers.forEach((x, i) => {
    const opacity = 255 * Math.min(1, Math.sqrt(Math.abs(x))); // most are small
    image.data.set([...(x < 0 ? BLUE : ORANGE), opacity], 4 * i);
  });
  element(id).getContext("2d").putImageData(image, 0, 0);
}
