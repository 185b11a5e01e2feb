// What M sees, drawn: its mixture, the reward and the end that it predicts, the latent, its state.

import { logWeightsOf, mixtureWeights } from "./dream.js";

const LATENT_RANGE = 3; // a latent's numbers are about N(0, 1)
const BLUE = [47, 107, 214];
const ORANGE = [226, 98, 20];

const element = (id) => document.getElementById(id);

/** Makes room for the numbers of a game's models. */
export function describeMind({ stepReward, latent, mixtures, jointMixture, hidden }) {
  element("reward-figure").hidden = stepReward !== null; // each step's is the same
  if (jointMixture) {
    element("mixture").innerHTML = "<i></i>".repeat(mixtures);
  } else {
    element("mixture-note").textContent = `${mixtures} for each number of z`;
    element("mixture").innerHTML = `<canvas id="mixtures" width="${latent}" height="${mixtures}"></canvas>`;
  }
  element("latent").innerHTML = "<i></i>".repeat(latent);
  const width = 2 ** Math.ceil(Math.log2(Math.sqrt(hidden)));
  for (const id of ["hidden", "cell"]) Object.assign(element(id), { width, height: Math.ceil(hidden / width) });
}

/** The moment of a dream, and the rewards and probabilities of the end before it. */
export function showMind(dream, rewards, ends, temperature) {
  showMixture(dream, temperature);
  stretch(
    "latent",
    Array.from(dream.latent, (x) => Math.max(-1, Math.min(1, x / LATENT_RANGE))),
  );
  element("reward").textContent = dream.reward.toFixed(2);
  element("end").textContent = `${(100 * dream.terminal).toFixed(1)} %`;
  trace("rewards", rewards, Math.min(0, ...rewards), Math.max(0.1, ...rewards));
  trace("ends", ends, 0, 0.5); // there the dream is over
  paint("hidden", dream.hidden);
  paint("cell", dream.cell);
}

/** The weights at this temperature: bars, or with a mixture for each number of the latent a column of tiles for each. */
function showMixture({ facts, prediction }, temperature) {
  const { jointMixture, latent, mixtures } = facts;
  const weights = (i) =>
    prediction ? mixtureWeights(logWeightsOf(prediction, i, facts), temperature) : new Array(mixtures).fill(0);
  if (jointMixture) return stretch("mixture", weights(0));
  const image = new ImageData(latent, mixtures);
  for (let i = 0; i < latent; i++)
    weights(i).forEach((weight, g) => image.data.set([...ORANGE, 255 * weight], 4 * (g * latent + i)));
  element("mixtures").getContext("2d").putImageData(image, 0, 0);
}

function stretch(id, values) {
  const bars = element(id).children;
  values.forEach((value, i) => (bars[i].style.transform = `scaleY(${value.toFixed(3)})`));
}

/** A line of numbers in a range, a unit for each step. */
function trace(id, numbers, lowest, highest) {
  const y = (x) => 38 - (36 * (Math.min(x, highest) - lowest)) / (highest - lowest);
  element(id).setAttribute("points", numbers.map((x, i) => `${i},${y(x).toFixed(1)}`).join(" "));
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
