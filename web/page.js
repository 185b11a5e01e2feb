// The page: what is shown, who drives, what keys, fingers and buttons do. The dream itself is in dream.js.

import { Dream, Random, listGames } from "./dream.js";
import { describeMind, showMind } from "./mind.js";

const HANDS_OFF = 3000; // milliseconds without a key until the trained driver takes the wheel again
const PAUSE_AT_END = 2500; // milliseconds: long enough to read why
const TRACE = 200; // steps whose reward and end are shown
const ARROWS = { left: "←", right: "→", up: "↑", down: "↓" };

const element = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
const random = new Random(address.get("seed") ?? Math.random() * 2 ** 32);
const held = new Set(); // keys of the game that are down
const touched = new Set(); // numbers of the action that are the human's, until the driver takes over
const rewards = [];
const ends = []; // probabilities
const sketch = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });

let dream;
let action;
let total = 0;
let temperature = 1;
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
let stepDue = false; // although paused
let restartDue = true;
let lastTouch = -Infinity;
let endedAt = 0;

main().catch((error) => (element("notice").textContent = `This page cannot dream: ${error.message}`));

async function main() {
  const games = await listGames();
  const { name } = games.find(({ name }) => name === address.get("game")) ?? games[0];
  offerGames(games, name);
  dream = await Dream.open(name);
  describeGame(dream.facts);
  describeMind(dream.facts);
  listen();
  showPause();
  await run();
}

/** One step for each frame that is shown, so that a busy tab slows the dream down and skips nothing. */
async function run() {
  const period = 1000 / dream.facts.framesPerSecond;
  let [due, counted, since] = [0, 0, performance.now()];
  for (;;) {
    const now = await new Promise(requestAnimationFrame);
    if (now - since > 1000) {
      if (counted) element("rate").textContent = Math.round((counted * 1000) / (now - since));
      [counted, since] = [0, now];
    }
    if (now - lastTouch > HANDS_OFF && !held.size) touched.clear();
    if (restartDue || (dream.ended && (paused ? stepDue : now - endedAt > PAUSE_AT_END))) {
      await restart();
    } else if (!dream.ended && (stepDue || (!paused && now >= due))) {
      due = Math.max(due, now - period) + period;
      stepDue = false;
      counted += 1;
      await step();
    }
  }
}

async function step() {
  action = await chooseAction();
  await dream.step(action, random.noise(dream.facts.noise), temperature);
  total += dream.reward;
  rewards.push(dream.reward);
  ends.push(dream.terminal);
  if (rewards.length > TRACE) [rewards, ends].forEach((numbers) => numbers.shift());
  if (dream.ended) {
    endedAt = performance.now();
    const next = paused ? "" : " Another moment follows.";
    element("notice").textContent = `Over after ${dream.steps} steps: ${dream.ended}.${next}`;
  }
  await show();
}

/** C's action; what the keys have a say in since the human took over is theirs. */
async function chooseAction() {
  const chosen = Float32Array.from(await dream.act());
  const { keys, lowest, highest } = dream.facts;
  for (const i of touched) {
    const sum = [...held].reduce((sum, key) => sum + keys[key][i], 0);
    chosen[i] = Math.min(Math.max(sum, lowest[i]), highest[i]);
  }
  return chosen;
}

async function restart() {
  restartDue = stepDue = false;
  dream.begin(Math.floor(random.uniform() * dream.facts.starts), random);
  action = new Float32Array(dream.facts.actionNames.length);
  total = 0;
  rewards.length = ends.length = 0;
  element("notice").textContent = "";
  await show();
}

// Keys, fingers and buttons

function listen() {
  addEventListener("keydown", (event) => handleKey(event, true));
  addEventListener("keyup", (event) => handleKey(event, false));
  addEventListener("blur", () => held.forEach(release));
  element("restart").addEventListener("click", askForRestart);
  element("pause").addEventListener("click", togglePause);
  element("once").addEventListener("click", stepOnce);
  element("temperature").addEventListener("input", (event) => setTemperature(event.target.valueAsNumber));
  for (const pad of element("pads").children) holdWith(pad, () => pad.dataset.key);
  if (dream.facts.keys.left && dream.facts.keys.right)
    holdWith(element("frame"), (event) => (event.offsetX < event.target.clientWidth / 2 ? "left" : "right"));
}

function handleKey(event, down) {
  const key = event.key.replace(/^Arrow/, "").toLowerCase();
  if (!down && held.has(key)) release(key); // wherever the focus is by now, and with Ctrl
  const atSlider = event.target === element("temperature") && event.key.startsWith("Arrow");
  if (atSlider || event.ctrlKey || event.metaKey || event.altKey) return;
  const commands = {
    r: askForRestart,
    ".": togglePause,
    e: stepOnce,
    "+": () => setTemperature(temperature + 0.05),
    "=": () => setTemperature(temperature + 0.05),
    "-": () => setTemperature(temperature - 0.05),
  };
  if (event.target.tagName !== "BUTTON") commands[" "] = togglePause;
  if (key in dream.facts.keys) (down ? press : release)(key);
  else if (key in commands) down && !event.repeat && commands[key]();
  else return;
  event.preventDefault();
}

/** While a finger or the mouse is down on the target, a key is. */
function holdWith(target, keyOf) {
  target.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    target.setPointerCapture(event.pointerId);
    const key = keyOf(event);
    press(key);
    const end = () => release(key);
    target.addEventListener("lostpointercapture", end, { once: true });
  });
  target.addEventListener("contextmenu", (event) => event.preventDefault());
}

function press(key) {
  held.add(key);
  dream.facts.keys[key].forEach((value, i) => value && touched.add(i));
  lastTouch = performance.now();
  showHeld();
}

function release(key) {
  held.delete(key);
  lastTouch = performance.now();
  showHeld();
}

function togglePause() {
  paused = !paused;
  showPause();
}

function stepOnce() {
  paused = stepDue = true;
  showPause();
}

function askForRestart() {
  restartDue = true;
}

function setTemperature(value) {
  const slider = element("temperature");
  slider.valueAsNumber = value; // the slider keeps it in its range
  temperature = slider.valueAsNumber;
  element("degrees").textContent = temperature.toFixed(2);
}

// What is shown

/** A link to each game, if there are several. */
function offerGames(games, shown) {
  if (games.length < 2) return;
  for (const { name, title } of games) {
    const link = Object.assign(document.createElement("a"), { href: `?game=${name}`, textContent: title });
    if (name === shown) link.setAttribute("aria-current", "page");
    element("games").append(link);
  }
}

function describeGame({ title, verb, goal, actionNames, keys, lowest, stepReward }) {
  const heading = `${verb[0].toUpperCase()}${verb.slice(1)} in the dream`;
  document.title = `${heading} of ${title}`;
  element("heading").textContent = heading;
  element("goal").textContent = goal;
  element("game").textContent = title;
  element("earned").hidden = stepReward !== null; // the steps say it all
  element("keys").innerHTML = `${Object.keys(keys)
    .map((key) => `<kbd>${ARROWS[key] ?? key}</kbd>`)
    .join(" ")} ${verb},`;
  element("pads").classList.toggle("flat", !keys.up && !keys.down);
  for (const [key, adds] of Object.entries(keys)) {
    const pad = document.createElement("button");
    pad.textContent = ARROWS[key] ?? key;
    pad.dataset.key = key;
    pad.tabIndex = -1; // the keyboard has the key itself
    pad.setAttribute("aria-label", `${key}: ${actionNames.filter((_, i) => adds[i]).join(", ")}`);
    element("pads").append(pad);
  }
  actionNames.forEach((name, i) => {
    const bar = `<dd class="${lowest[i] < 0 ? "signed" : ""}"><i></i></dd>`;
    element("action").insertAdjacentHTML("beforeend", `<dt>${name}</dt>${bar}`);
  });
}

async function show() {
  sketch.getContext("2d").putImageData(await dream.picture(), 0, 0);
  const canvas = element("frame").getContext("2d");
  canvas.imageSmoothingQuality = "high";
  canvas.drawImage(sketch, 0, 0, 512, 512);
  showDriver();
  element("steps").textContent = dream.steps;
  element("return").textContent = total.toFixed(0);
  [...element("action").querySelectorAll("i")].forEach((bar, i) => (bar.style.transform = `scaleX(${action[i]})`));
  showMind(dream, rewards, ends, temperature);
}

function showDriver() {
  const driver = element("driver");
  const text = touched.size ? "Driver: you" : "Driver: trained";
  if (driver.textContent !== text) driver.textContent = text; // a screen reader speaks on every change
  driver.classList.toggle("you", touched.size > 0);
  [...element("action").querySelectorAll("dd")].forEach((bar, i) => bar.classList.toggle("you", touched.has(i)));
}

function showHeld() {
  for (const pad of element("pads").children) pad.classList.toggle("held", held.has(pad.dataset.key));
}

function showPause() {
  element("pause").setAttribute("aria-pressed", paused);
}
