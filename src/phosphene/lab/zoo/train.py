"""Train a network of the zoo: ``python -m phosphene.lab.zoo.train NAME [--minutes M] [--steps N] [--out DIR]``.

It goes on where it was stopped, and ends by writing NAME.safetensors, NAME.json, NAME.md (the card) and NAME.png (what
it does to scenes it was not trained on) into --out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from phosphene._version import __version__
from phosphene.io import atomic
from phosphene.io.progress import Progress, duration
from phosphene.io.run_folder import read_json
from phosphene.lab.zoo import networks, to_network
from phosphene.lab.zoo.material import HELD_OUT, TRAIN, Scenes, scenes
from phosphene.lab.zoo.packing import packed, unpacked
from phosphene.training import train
from phosphene.training.checkpoint import load_module_state

__all__ = ["N_HELD_OUT", "N_TRAIN", "main", "make"]

N_TRAIN = 60_000
N_HELD_OUT = 2_000


def main(arguments: list[str] | None = None) -> None:
    """Train what the command line asks for.

    Parameters
    ----------
    arguments : list of str, optional
        Of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m phosphene.lab.zoo.train", description=__doc__)
    parser.add_argument("name", choices=networks.NETWORKS)
    parser.add_argument("--out", type=Path, default=Path("zoo"), help="where weights and checkpoints go")
    parser.add_argument("--steps", type=int, help="optimiser steps in all; may be raised later")
    parser.add_argument("--minutes", type=float, help="stop after so long, to go on another time")
    parser.add_argument("--scenes", type=int, default=N_TRAIN, help="how many to train on")
    parser.add_argument("--held-out", type=int, default=N_HELD_OUT, help="how many to score on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other-scenes", action="store_true", help="go on although scenes or captions have changed")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "phosphene-zoo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default=None)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    make(options)


def make(options: argparse.Namespace) -> dict[str, float]:
    """Train, score and write one network.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.

    Returns
    -------
    dict of {str: float}
        Its scores.
    """
    progress = Progress()
    material = scenes(TRAIN, options.scenes, options.cache, progress)
    held_out = scenes(HELD_OUT, options.held_out, options.cache, progress)
    name = options.name
    folder = atomic.checked_path(options.out)
    checkpoints = folder / "checkpoints" / name
    entry = networks.NETWORKS[name]
    config = _config(name, material)

    # Initial weights come from torch's global generator, which is left as it was.
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        objective = networks.find(entry.objective)(networks.build(name, config))

    record: dict[str, Any] = {"name": name, "class": entry.network, "config": config}
    rows_of = material.tensors() | objective.lessons(material)
    score_with: list[Any] = []

    if name == "clip":
        record["tokenizer"] = _tokenizer(checkpoints / "tokenizer.json", config["text_config"], material)
        rows_of["tokens"] = _tokens(record["tokenizer"], material)
        score_with.append(networks.make_tokenizer(record["tokenizer"]))

    def fetch(rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Pictures and all else that is known of some scenes."""
        at = torch.from_numpy(rows)
        batch = {"x": to_network(material.pixels[rows])}
        for key, values in rows_of.items():
            batch[key] = values[at]

        return batch

    def say(entry: dict[str, Any]) -> None:
        """Show one entry of the curve."""
        progress.say(" ".join(f"{key} {value:.4g}" for key, value in entry.items()))

    settings = objective.config
    if options.steps is not None:
        settings = settings.model_copy(update={"steps": options.steps})

    may_change = ("steps",)
    if options.other_scenes:
        may_change = ("steps", "data")

    began = time.perf_counter()
    result = train(
        objective, fetch, len(material), settings, seed=options.seed, folder=checkpoints,
        data=f"{material.digest} {objective.teachers()}".strip(),
        save_minutes=2, minutes=options.minutes, may_change=may_change, progress=progress, device=options.device,
        optimizer=objective.optimizer,
        watch=say,
    )  # fmt: skip

    # Weights are rounded as they will be stored before they are scored.
    network = objective.network.cpu()
    stored = _round_weights(network, entry.stored)
    measured, grid, more = networks.find(entry.score)(network, held_out, *score_with)

    # The factor that brings latents to variance 1 belongs to the configuration of an autoencoder.
    if "scaling_factor" in more:
        record["config"] = {**config, "scaling_factor": more.pop("scaling_factor")}

    record["pictures"] = "uint8 0-255 -> float32, x / 127.5 - 1, (n, 3, 32, 32); phosphene.lab.zoo.to_network"
    record["scores"] = {key: round(value, 4) for key, value in measured.items()}
    record |= more
    record["training"] = {
        "steps": result.step, "of": settings.steps, "batch_size": settings.batch_size, "seed": options.seed,
        "scenes": len(material), "scenes_seed": TRAIN, "held_out": len(held_out), "held_out_seed": HELD_OUT,
        "scenes_digest": material.digest, "teachers": objective.teachers(), "settings": settings.model_dump(mode="json"),
        "last_loss": _last_loss(result.curve),
        "seconds_of_this_call": round(time.perf_counter() - began),
        "steps_of_this_call": result.step - result.resumed_at,
        "hardware": options.device or f"{platform.machine()}, {options.threads} CPU thread(s)",
        "torch": torch.__version__, "phosphene": __version__,
    }  # fmt: skip

    _write(folder, name, network, stored, record, grid)
    for key, value in measured.items():
        progress.say(f"{key}: {value:.4f}")

    seconds = duration(time.perf_counter() - began)
    progress.say(f"{name}: {result.step} of {settings.steps} steps, {seconds} in this call")

    return measured


def _config(name: str, material: Scenes) -> dict[str, Any]:
    """Configuration of a network, as plain values; the classifier's outputs are named after the scenes."""
    config = json.loads(json.dumps(networks.NETWORKS[name].config))
    if name == "classifier":
        config["categories"] = list(material.categories)
        config["places"] = list(material.places)
        config["labels"] = list(material.names)

    return config


def _last_loss(curve: list[dict[str, Any]]) -> float | None:
    """Loss where the curve ends; None for a curve without a point."""
    if not curve:
        return None
    return curve[-1]["loss"]


def _tokenizer(file: Path, config: dict[str, Any], material: Scenes) -> dict[str, Any]:
    """The vocabulary a training started with, which it keeps even where captions change later."""
    if not file.is_file():
        corpus = []
        for captions in material.captions[:5000]:
            corpus += captions
        vocabulary = networks.train_tokenizer(corpus, config["vocab_size"], config["max_position_embeddings"])
        atomic.write_text(file, json.dumps(vocabulary))

    return read_json(file)


def _tokens(tokenizer: dict[str, Any], material: Scenes) -> torch.Tensor:
    """(n, 5, length) int64; every text is closed by an end mark and padded with it."""
    encode = networks.make_tokenizer(tokenizer)
    texts = []
    for captions in material.captions:
        texts += captions
    encoded = encode(texts, padding="max_length", truncation=True, max_length=tokenizer["length"])
    ids = np.array(encoded["input_ids"])  # (5 n, length)

    # As short as the longest text with one end mark allows: padding costs as much as words do.
    longest = int((ids != encode.pad_token_id).sum(1).max()) + 1
    ids = ids[:, : min(longest, tokenizer["length"])]

    return torch.from_numpy(ids.reshape(len(material), -1, ids.shape[1]))


def _round_weights(network: nn.Module, how: str) -> dict[str, torch.Tensor]:
    """Tensors as they will be stored, which the network takes over: scores are of what others will load."""
    stored = packed(network.state_dict(), how)
    load_module_state(network, unpacked({k: v.numpy() for k, v in stored.items()}), "the network just trained")
    return stored


def _write(
    folder: Path,
    name: str,
    network: nn.Module,
    stored: dict[str, torch.Tensor],
    record: dict[str, Any],
    grid: np.ndarray,
) -> None:
    """Write weights, record, card and pictures of a network."""
    data = save(stored)
    record["weights"] = sum(w.numel() for w in network.parameters())
    record["dtype"] = networks.NETWORKS[name].stored
    record["bytes"] = len(data)
    record["sha256"] = hashlib.sha256(data).hexdigest()

    png = io.BytesIO()
    Image.fromarray(grid).save(png, "PNG", optimize=True)

    atomic.write_bytes(folder / f"{name}.safetensors", data)
    atomic.write_text(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    atomic.write_text(folder / f"{name}.md", _card(record))
    atomic.write_bytes(folder / f"{name}.png", png.getvalue())


def _card(about: dict[str, Any]) -> str:
    """The model card, as Markdown."""
    training = about["training"]
    name = about["name"]
    rows = "\n".join(f"| {key} | {value:.4g} |" for key, value in about["scores"].items())
    return f"""# {name}

{networks.NETWORKS[name].about}

- **Class**: `{about["class"]}`, {about["weights"]:,} weights, stored as {about["dtype"]} ({about["bytes"] / 1e6:.2f} MB);
  SHA-256 `{about["sha256"]}`
- **Pictures**: {about["pictures"]}
- **Data**: {training["scenes"]:,} in-silico scenes (seed {training["scenes_seed"]}, digest `{training["scenes_digest"][:16]}`);
  drawn, not photographed. The lab's data sets use other seeds.
- **Learned from**: {training["teachers"] or "the scenes alone"}
- **Training**: {training["steps"]:,} of {training["of"]:,} steps of {training["batch_size"]}, seed {training["seed"]}, on
  {training["hardware"]}, torch {training["torch"]}; settings in `{name}.json`. Made by
   `python -m phosphene.lab.zoo.train {name}`.
- **For**: the in-silico lab and tests. It knows nothing of photographs.

Scores of the stored weights on {training["held_out"]:,} scenes of another seed ({training["held_out_seed"]}):

| score | value |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main(sys.argv[1:])
