"""The page of export_dream.py, in a real Chromium, as a person uses it; skipped where there is no browser."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import ROOT, run, succeed

import export_dream
from benchmarks import browser as benchmark
from benchmarks.browser import open_browser, serve, wait_for_frame
from envs.dream import DreamSettings
from models.mdrnn import Prediction, sample_mixture
from models.packed import Packed
from models.page_models import Picture, Step
from models.vae import VAE
from utils.commandline import UserError
from utils.onnx_runtime_web import install_runtime
from utils.run_folder import load_controller, load_dreams, load_mdrnn, load_vae

pytestmark = pytest.mark.slow
SHIPPED = {"carracing": ROOT / "pretrained" / "dream", "takecover": ROOT / "pretrained" / "takecover"}
STEPS = 100
# Of latents, in float32. Take Cover's M enlarges what rounding leaves: within PyTorch, the dream at temperature 1 is
# 1.1e-3 from itself in float64.
TOLERANCES = {"carracing": 1e-3, "takecover": 5e-3}
# Takes actions from a start, with noise; returns latents, rewards and logits, the last picture, and C's action then.
FOLLOW = """async ({ game, start, actions, noise, temperature }) => {
    const { Dream } = await import(new URL("dream.js", location.href).href);
    const dream = await Dream.open(game);
    dream.beginAt(...start.map((numbers) => Float32Array.from(numbers)));
    const steps = [];
    for (const [i, action] of actions.entries()) {
        await dream.step(action, noise[i], temperature);
        steps.push([...dream.latent, dream.prediction.reward[0], dream.prediction.terminal_logit[0]]);
    }
    const picture = await dream.picture();
    return { steps, picture: Array.from(picture.data), action: Array.from(await dream.act()) };
}"""
ENDS = """async (changes) => {
    const { Dream, Random } = await import(new URL("dream.js", location.href).href);
    const [dream, random] = [await Dream.open("carracing"), new Random(0)];
    Object.assign(dream.facts, changes);
    dream.begin(0, random);
    while (!dream.ended) await dream.step(await dream.act(), random.noise(dream.facts.noise), 1);
    return [dream.steps, dream.ended];
}"""


@pytest.fixture(scope="module")
def browser():
    try:
        with open_browser("--renderer-process-limit=1") as browser:
            yield browser
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A folder with a page of both games, in a subfolder; not to be changed."""
    folder = tmp_path_factory.mktemp("site")
    try:
        install_runtime(folder / "page" / "ort")
    except UserError as error:
        pytest.skip(str(error))
    for game, logdir in SHIPPED.items():
        succeed(run("export_dream.py", "--logdir", logdir, "--out", folder / "page"))
        assert export_dream.models_size(folder / "page" / game) <= 5
    return folder


@pytest.fixture(scope="module")
def address(pages) -> Iterator[str]:
    with serve(pages) as address:
        yield address + "page/"


@pytest.fixture(scope="module")
def context(browser, address) -> Iterator:
    """A window whose tabs share what the browser keeps; one, in which nothing moves, stays open for that."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context, open_tab(context, address, "") as tab:
        tab.click("#pause")
        yield context


@contextmanager
def open_tab(context, address: str, query: str) -> Iterator:
    """A tab on the page; fails if the page has errors, or needs another host."""
    with context.new_page() as tab:
        failures, asked = [], []
        tab.on("pageerror", lambda error: failures.append(error))
        tab.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address + query)
        wait_for_frame(tab)
        yield tab
        assert not failures
        assert all(url.startswith((address, "data:")) for url in asked)


@pytest.fixture
def tab(context, address):
    """A tab on the first game's page, in which the same dream begins in each test."""
    with open_tab(context, address, "?seed=5") as tab:
        yield tab


@pytest.fixture
def takecover(context, address):
    """The same for Take Cover."""
    with open_tab(context, address, "?game=takecover&seed=1") as tab:
        yield tab


@pytest.fixture(scope="module")
def bare_tab(browser, address):
    """A tab on the same host, but on no page that dreams at the same time."""
    with browser.new_context() as context:
        tab = context.new_page()
        tab.goto(address + "games.json")
        yield tab


def count(tab) -> int:
    return int(tab.inner_text("#steps"))


def wait_for_steps(tab, steps: int) -> None:
    tab.wait_for_function(f"document.getElementById('steps').textContent >= {steps}")


def seen(tab) -> np.ndarray:
    """The frame that is shown, (512, 512, 3)."""
    address = tab.evaluate("document.getElementById('frame').toDataURL()")
    return imageio.imread(base64.b64decode(address.split(",")[1]))[..., :3]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.5])
@pytest.mark.parametrize("game", ["carracing", "takecover"])
def test_a_dream_is_pytorchs(bare_tab, game, temperature):
    """CarRacing's with M as it was trained; Take Cover's with M rounded to fewer bits."""
    logdir = SHIPPED[game]
    vae, mdrnn, controller = load_vae(logdir).eval(), load_mdrnn(logdir).eval(), load_controller(logdir).eval()
    sizes = mdrnn.sizes
    step = Step(mdrnn) if game == "carracing" else Packed(Step(mdrnn))
    torch.manual_seed(0)
    starts = load_dreams(logdir, DreamSettings()).starts
    latent, hidden, cell = (torch.from_numpy(column[-1:]) for column in (starts.mu, starts.hidden, starts.cell))
    actions = torch.rand(STEPS, 1, sizes.action) * torch.linspace(0, 1, STEPS)[:, None, None]
    normals, uniforms = sizes.noise
    noise = torch.cat([torch.randn(STEPS, normals), torch.rand(STEPS, uniforms)], dim=1)
    start = [part[0].tolist() for part in (latent, hidden, cell)]
    followed = {"game": game, "start": start, "temperature": temperature}
    followed |= {"actions": actions[:, 0].tolist(), "noise": noise.tolist()}
    there = bare_tab.evaluate(FOLLOW, followed)
    here = []
    with torch.inference_mode():
        for i in range(STEPS):
            *prediction, hidden, cell = step(latent, actions[i], hidden, cell)
            latent = sample_mixture(Prediction(*prediction), noise[i : i + 1], temperature)
            here.append([*latent[0].tolist(), *(part.item() for part in prediction[3:])])
        picture = Packed(Picture(vae.decoder))(latent).int().flatten().numpy()
        action = controller(latent, hidden, cell)[0].numpy()
    np.testing.assert_allclose(there["steps"], here, atol=TOLERANCES[game])
    np.testing.assert_allclose(there["picture"], picture, atol=1)
    np.testing.assert_allclose(there["action"], action, atol=TOLERANCES[game])


@pytest.mark.parametrize("game", SHIPPED)
def test_rounded_weights_paint_the_same_to_the_eye(game):
    vae: VAE = load_vae(SHIPPED[game]).eval()
    starts = torch.load(SHIPPED[game] / "mdrnn" / "best.tar", weights_only=True)["starts"]["mu"][::50].float()
    exact, packed = Picture(vae.decoder), Packed(Picture(vae.decoder))
    with torch.inference_mode():
        errors = torch.stack([exact(latent[None]).float() - packed(latent[None]).float() for latent in starts])
    assert errors[..., :3].square().mean().sqrt() < 1.2  # of 255 levels


def test_who_drives_and_what_it_does_to_the_road(tab):
    roads = []
    for key, driver in ((None, "Driver: trained"), ("ArrowLeft", "Driver: you"), ("ArrowRight", "Driver: you")):
        tab.reload()
        wait_for_frame(tab)
        if key:
            tab.keyboard.down(key)
        wait_for_steps(tab, 40)
        assert tab.inner_text("#driver") == driver
        roads.append(seen(tab).astype(int))
    assert all(np.abs(a - b).mean() > 5 for a, b in zip(roads, roads[1:] + roads[:1], strict=True))
    assert tab.get_attribute("[data-key=right]", "class") == "held"
    tab.keyboard.up("ArrowRight")
    tab.wait_for_function("document.getElementById('driver').textContent.includes('trained')", timeout=10_000)


def test_a_key_let_go_with_ctrl_does_not_stick(tab):
    tab.keyboard.down("ArrowRight")
    assert tab.get_attribute("[data-key=right]", "class") == "held"
    tab.keyboard.down("Control")
    tab.keyboard.up("ArrowRight")
    assert tab.get_attribute("[data-key=right]", "class") != "held"
    tab.keyboard.up("Control")


def test_the_slider_and_its_keys(tab):
    tab.keyboard.press("+")
    assert tab.inner_text("#degrees") == "1.05"
    tab.focus("#temperature")
    tab.keyboard.press("ArrowRight")  # moves the slider, and does not drive
    assert tab.inner_text("#degrees") == "1.10" and "trained" in tab.inner_text("#driver")
    tab.keyboard.press("End")
    assert tab.inner_text("#degrees") == "1.50"
    tab.keyboard.press("Home")
    tab.keyboard.press("-")
    assert tab.inner_text("#degrees") == "0.10"


def test_pause_single_step_and_another_moment(tab):
    wait_for_steps(tab, 20)
    tab.keyboard.press(".")
    tab.wait_for_timeout(100)
    paused = count(tab)
    tab.wait_for_timeout(300)
    assert count(tab) == paused and tab.get_attribute("#pause", "aria-pressed") == "true"
    tab.keyboard.press("e")
    wait_for_steps(tab, paused + 1)
    tab.focus("#once")
    tab.keyboard.press("Enter")
    wait_for_steps(tab, paused + 2)
    before = seen(tab)
    tab.keyboard.press("r")
    tab.wait_for_function("document.getElementById('steps').textContent == 0")
    assert (seen(tab) != before).any()
    tab.evaluate("document.activeElement.blur()")  # at a button, space presses it
    tab.keyboard.press("Space")
    wait_for_steps(tab, 3)


def test_a_busy_tab_slows_the_dream_down_and_skips_nothing(tab):
    wait_for_steps(tab, 20)
    busy = "async () => { const steps = () => +document.getElementById('steps').textContent, before = steps(); "
    busy += "const end = performance.now() + 1000; while (performance.now() < end); const after = steps(); "
    busy += "for (let i = 0; i < 10; i++) await new Promise(requestAnimationFrame); return [before, after, steps()]; }"
    before, after, later = tab.evaluate(busy)
    assert after == before and later <= before + 11  # one for each frame shown; 50 would have been due


def test_on_a_phone_fingers_drive(browser, address):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    with browser.new_context(**phone) as context:
        tab = context.new_page()
        tab.goto(address)
        wait_for_frame(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        for pad in tab.locator("#pads button").all():
            box = pad.bounding_box()
            assert min(box["width"], box["height"]) >= 44 and box["y"] + box["height"] <= 740  # in sight, no scrolling
        tab.tap("[data-key=left]")
        tab.wait_for_function("document.getElementById('driver').textContent == 'Driver: you'")
        tab.set_viewport_size({"width": 740, "height": 360})  # turned
        assert tab.evaluate("document.documentElement.scrollWidth") == 740


def test_a_tab_resized_to_a_phone_stays_whole(tab):
    for width in (1280, 900, 600, 360):
        tab.set_viewport_size({"width": width, "height": 740})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
    steps = count(tab)
    wait_for_steps(tab, steps + 5)


def test_all_can_be_reached_and_is_labelled(tab):
    reached = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["CarRacing-v3", "VizDoom Take Cover", "restart", "pause", "once", "temperature"]
    unlabelled = "[...document.querySelectorAll('button, input, canvas, svg, [role=img]')].filter((element) => "
    unlabelled += "!element.ariaLabel && !element.textContent.trim() && !element.labels?.length).map(({ id }) => id)"
    assert tab.evaluate(unlabelled) == []


def test_what_m_sees_is_shown(tab):
    wait_for_steps(tab, 20)
    tab.keyboard.press(".")
    tab.wait_for_timeout(100)
    heights = "[...document.querySelectorAll('#{} i')].map((bar) => +bar.style.transform.slice(7, -1))"
    weights, latent = (tab.evaluate(heights.format(id)) for id in ("mixture", "latent"))
    assert len(weights) == 5 and sum(weights) == pytest.approx(1, abs=0.01)
    assert len(latent) == 32 and np.std(latent) > 0.01
    assert float(tab.inner_text("#reward")) and tab.inner_text("#end").endswith("%")
    assert all(len(tab.get_attribute(id, "points").split()) == count(tab) for id in ("#rewards", "#ends"))
    colours = "document.getElementById('{}').getContext('2d').getImageData(0, 0, 16, 16).data"
    assert all(np.std(tab.evaluate(colours.format(id))) > 10 for id in ("hidden", "cell"))


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"maxSteps": 3}, [3, "the time is over"]),
        ({"wholeGain": 2, "stepReward": 1, "idleReward": 0}, [2, "all is earned that there is"]),
    ],
)
def test_a_dream_ends_as_in_pytorch(tab, changes, why):
    assert tab.evaluate(ENDS, changes) == why


def test_each_game_leads_to_the_other(tab):
    for title, heading in (("VizDoom Take Cover", "Dodge in the dream"), ("CarRacing-v3", "Drive in the dream")):
        tab.focus(f"text={title}")
        tab.keyboard.press("Enter")
        tab.wait_for_function(f"document.title == '{heading} of {title}'")
        wait_for_frame(tab)
        assert tab.inner_text("h1") == heading and tab.inner_text("[aria-current=page]") == title


def test_take_cover_is_steered_sideways(takecover):
    assert takecover.locator("#pads button").count() == 2 and "fireballs" in takecover.inner_text("header")
    views = []
    for key, action in (("ArrowLeft", -1), ("ArrowRight", 1)):
        takecover.reload()
        wait_for_frame(takecover)
        takecover.keyboard.down(key)
        wait_for_steps(takecover, 40)
        assert takecover.evaluate("document.querySelector('#action i').style.transform") == f"scaleX({action})"
        views.append(seen(takecover).astype(int))
        takecover.keyboard.up(key)
    assert np.abs(views[0] - views[1]).mean() > 3


def test_what_m_sees_of_take_cover(takecover):
    """A mixture for each number of the latent; no reward, because it is the same for each step."""
    wait_for_steps(takecover, 5)
    takecover.keyboard.press(".")
    takecover.wait_for_timeout(100)
    tiles = "document.getElementById('mixtures').getContext('2d').getImageData(0, 0, 64, 5).data"
    weights = np.array(takecover.evaluate(tiles)).reshape(5, 64, 4)[..., 3] / 255
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=0.02)
    assert not takecover.is_visible("#reward-figure") and takecover.inner_text(".status").endswith(" steps")


def test_a_death_is_said_and_another_moment_follows(context, address):
    """Who runs into a wall and stays there is shot; in this dream after some 70 steps."""
    notice = "document.getElementById('notice').textContent"
    with open_tab(context, address, "?game=takecover&seed=30") as tab:
        tab.keyboard.down("ArrowLeft")
        tab.wait_for_function(f"{notice}.includes('M predicts your death')", timeout=60_000)
        steps, text = count(tab), tab.inner_text("#notice")
        assert text == f"Over after {steps} steps: M predicts your death. Another moment follows."
        assert float(tab.inner_text("#end").split()[0]) >= 50
        tab.wait_for_function(f"{notice} == '' && document.getElementById('steps').textContent < {steps}")


def test_paused_a_step_after_the_end_begins_another_dream(tab):
    tab.keyboard.press(".")
    ends = "import(new URL('dream.js', location.href).href).then(({ Dream }) => { const step = Dream.prototype.step; "
    ends += "Dream.prototype.step = async function (...all) { await step.apply(this, all); this.ended = 'enough'; }; })"
    tab.evaluate(ends)
    tab.keyboard.press("e")
    tab.wait_for_function("document.getElementById('notice').textContent.endsWith('steps: enough.')")
    tab.keyboard.press("e")
    tab.wait_for_function("document.getElementById('steps').textContent == 0")


def test_the_benchmark_has_a_row_for_each_page(browser, pages, monkeypatch):
    def export_again(words: list[str]) -> None:
        shutil.copytree(pages / "page", words[-1], dirs_exist_ok=True)

    monkeypatch.setattr(export_dream, "main", export_again)
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(benchmark, "FRAMES", 3)
    monkeypatch.setattr(benchmark, "open_browser", lambda: nullcontext(browser))
    output = succeed(run("-m", "benchmarks.browser", "--logdir", *SHIPPED.values()))
    assert [row.split(" | ")[0] for row in output.splitlines()[-2:]] == ["| CarRacing-v3", "| VizDoom Take Cover"]
