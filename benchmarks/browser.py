"""Measure the page of export_dream.py in a headless Chromium, beside PyTorch doing the same work.

    python -m benchmarks.browser --logdir pretrained/dream pretrained/takecover

Prints a row for each run folder.

The work is a dreamed frame: C acts, M steps, a latent is drawn, V paints it. Both use one core, in turn.
"""

import functools
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import export_dream
from models.controller import Controller
from models.mdrnn import MDRNN, Prediction, sample_mixture
from models.page_models import Picture, Step
from models.vae import VAE
from utils.commandline import ScriptParser, UserError, run_script
from utils.provenance import processor
from utils.run_folder import load_controller, load_game, load_mdrnn, load_vae

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROUNDS = 5
FRAMES = 300
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DREAM = """async ({ game, frames }) => {
    const { Dream, Random } = await import(new URL("dream.js", location.href).href);
    const [dream, random] = [await Dream.open(game), new Random(0)];
    dream.begin(0, random);
    const start = performance.now();
    for (let frame = 0; frame < frames; frame++) {
        await dream.step(await dream.act(), random.noise(dream.facts.noise), 1);
        await dream.picture();
    }
    return (1000 * frames) / (performance.now() - start);
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder on a port of this machine; yields its address, with a slash at its end."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def open_browser(*options: str) -> Iterator["Browser"]:
    """A headless Chromium: the system's, else Playwright's own; with more options of its command line. Raises UserError
    if there is none."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise UserError("playwright is not installed: python -m pip install -r requirements-dev.txt") from None
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            arguments = ["--disable-background-networking", *options]
            browser = playwright.chromium.launch(executable_path=path, args=arguments)
        except Error:
            raise UserError("no Chromium: apt install chromium, or python -m playwright install chromium") from None
        yield browser
        browser.close()


def wait_for_frame(page: "Page") -> None:
    """Until the first dreamed frame is shown."""
    page.wait_for_function("document.getElementById('steps').textContent > 0")


def main(argv: Sequence[str] | None = None) -> None:
    parser = ScriptParser(__file__, __doc__)
    parser.add_argument("--logdir", type=Path, nargs="+", required=True, help="run folders with V, M and C")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with open_browser() as browser:
        rows = [measure(browser, logdir) for logdir in args.logdir]
        print(f"\n{processor()}, Chromium {browser.version}, torch {torch.__version__}\n")
    print("| page | models | dreamed frames | PyTorch | ratio | first frame after opening |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


def measure(browser: "Browser", logdir: Path) -> str:
    """A row of the table: medians."""
    game, _ = load_game(logdir)
    with tempfile.TemporaryDirectory() as folder:
        export_dream.main(["--logdir", str(logdir), "--out", folder])
        size = export_dream.models_size(Path(folder) / game.name)
        with serve(Path(folder)) as address:
            first = statistics.median(first_frame(browser, address) for _ in range(ROUNDS))
            rates = [(browser_rate(browser, address, game.name), torch_rate(logdir)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    return f"| {game.title} | {size:.1f} MB | {ours:.0f} /s | {theirs:.0f} /s | {ours / theirs:.2f} | {first:.1f} s |"


def first_frame(browser: "Browser", address: str) -> float:
    """Seconds from opening the page, with nothing cached, to the first dreamed frame."""
    with browser.new_context() as context:
        page = context.new_page()
        start = time.perf_counter()
        page.goto(address)
        wait_for_frame(page)
        return time.perf_counter() - start


def browser_rate(browser: "Browser", address: str, game: str) -> float:
    """Dreamed frames a second, no faster or slower for being shown."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address + "games.json")  # the same host, but no page that dreams at the same time
        return page.evaluate(DREAM, {"game": game, "frames": FRAMES})


def torch_rate(logdir: Path) -> float:
    """The same in PyTorch, in float32, with the weights as they were trained."""
    vae, mdrnn, controller = load_vae(logdir).eval(), load_mdrnn(logdir).eval(), load_controller(logdir).eval()
    dream(vae, mdrnn, controller, 20)  # warm
    start = time.perf_counter()
    dream(vae, mdrnn, controller, FRAMES)
    return FRAMES / (time.perf_counter() - start)


@torch.inference_mode()
def dream(vae: VAE, mdrnn: MDRNN, controller: Controller, frames: int) -> None:
    sizes = mdrnn.sizes
    picture, step = Picture(vae.decoder), Step(mdrnn)
    latent, hidden, cell = torch.zeros(1, sizes.latent), torch.zeros(1, sizes.hidden), torch.zeros(1, sizes.hidden)
    normals, uniforms = sizes.noise
    for _ in range(frames):
        *prediction, next_hidden, next_cell = step(latent, controller(latent, hidden, cell), hidden, cell)
        noise = torch.cat([torch.randn(1, normals), torch.rand(1, uniforms)], dim=1)
        latent = sample_mixture(Prediction(*prediction), noise)
        hidden, cell = next_hidden, next_cell
        picture(latent)


if __name__ == "__main__":
    run_script(main)
