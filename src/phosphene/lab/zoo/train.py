"""Train a network of the zoo: ``python -m phosphene.lab.zoo.train NAME [--minutes M] [--steps N] [--out DIR]``.

It goes on where it was stopped, and ends by writing NAME.safetensors, NAME.json, NAME.md (the card) and NAME.png (what
it does to scenes it was not trained on) into --out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from phosphene._version import __version__
from phosphene.io import atomic
from phosphene.io.folder import read_json
from phosphene.io.progress import Progress, duration
from phosphene.lab.zoo import networks
from phosphene.lab.zoo.material import HELD_OUT, TRAIN, Scenes, scenes
from phosphene.lab.zoo.packing import packed, unpacked

N_TRAIN = 60_000
N_HELD_OUT = 2_000


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
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
    import torch

    torch.set_num_threads(options.threads)
    make(options)


def make(options: argparse.Namespace) -> dict[str, float]:
    """Train, score and write one network; its scores."""
    import torch

    from phosphene.lab.zoo import to_network
    from phosphene.training import train

    progress = Progress()
    material = scenes(TRAIN, options.scenes, options.cache, progress)
    held_out = scenes(HELD_OUT, options.held_out, options.cache, progress)
    name = options.name
    folder = atomic.checked_path(options.out)
    entry = networks.NETWORKS[name]
    config = _config(name, material)
    checkpoints = folder / "checkpoints" / name

    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        objective = networks.find(entry.objective)(networks.build(name, config))

    extra = material.tensors() | objective.lessons(material)
    about: dict[str, Any] = {"name": name, "class": entry.network, "config": config}
    if name == "clip":
        about["tokenizer"] = _tokenizer(checkpoints / "tokenizer.json", config["text_config"], material)
        extra["tokens"] = _tokens(about["tokenizer"], material)

    def fetch(rows: np.ndarray) -> dict[str, torch.Tensor]:
        at = torch.from_numpy(rows)
        return {"x": to_network(material.pixels[rows]), **{k: v[at] for k, v in extra.items()}}

    settings = objective.config
    if options.steps is not None:
        settings = settings.model_copy(update={"steps": options.steps})

    began = time.perf_counter()
    if options.other_scenes:
        changeable = ("steps", "data")
    else:
        changeable = ("steps",)

    result = train(
        objective, fetch, len(material), settings, seed=options.seed, folder=checkpoints,
        data=f"{material.digest} {objective.teachers()}".strip(),
        save_minutes=2, minutes=options.minutes, may_change=changeable, progress=progress, device=options.device,
        optimizer=objective.optimizer,
        watch=lambda entry: progress.say(" ".join(f"{k} {v:.4g}" for k, v in entry.items())),
    )  # fmt: skip

    network = objective.network.cpu()
    kept = _rounded(network, entry.stored)

    if name == "clip":
        arguments = [networks.make_tokenizer(about["tokenizer"])]
    else:
        arguments = []

    measured, grid, found = networks.find(entry.score)(network, held_out, *arguments)
    about["config"] = {**config, **{k: v for k, v in found.items() if k == "scaling_factor"}}
    about |= {
        "pictures": "uint8 0-255 -> float32, x / 127.5 - 1, (n, 3, 32, 32); phosphene.lab.zoo.to_network",
        "scores": {k: round(v, 4) for k, v in measured.items()},
        **{k: v for k, v in found.items() if k != "scaling_factor"},
        "training": {
            "steps": result.step, "of": settings.steps, "batch_size": settings.batch_size, "seed": options.seed,
            "scenes": len(material), "scenes_seed": TRAIN, "held_out": len(held_out), "held_out_seed": HELD_OUT,
            "scenes_digest": material.digest, "teachers": objective.teachers(), "settings": settings.model_dump(mode="json"),
            "last_loss": result.curve[-1]["loss"] if result.curve else None,
            "seconds_of_this_call": round(time.perf_counter() - began), "steps_of_this_call": result.step - result.resumed_at,
            "hardware": f"{platform.machine()}, {options.threads} CPU thread(s)" if not options.device else options.device,
            "torch": torch.__version__, "phosphene": __version__,
        },
    }  # fmt: skip

    _write(folder, name, network, kept, about, grid)
    for key, value in measured.items():
        progress.say(f"{key}: {value:.4f}")

    progress.say(
        f"{name}: {result.step} of {settings.steps} steps, {duration(time.perf_counter() - began)} in this call"
    )

    return measured


def _config(name: str, material: Scenes) -> dict[str, Any]:
    config = json.loads(json.dumps(networks.NETWORKS[name].config))
    if name == "classifier":
        config |= {
            "categories": list(material.categories), "places": list(material.places), "labels": list(material.names),
        }  # fmt: skip

    return config


def _tokenizer(file: Path, config: dict[str, Any], material: Scenes) -> dict[str, Any]:
    """The vocabulary a training started with, which it keeps even where captions change later."""
    if not file.is_file():
        corpus = [c for captions in material.captions[:5000] for c in captions]
        made = networks.train_tokenizer(corpus, config["vocab_size"], config["max_position_embeddings"])
        atomic.write_text(file, json.dumps(made))

    return read_json(file)


def _tokens(tokenizer: dict[str, Any], material: Scenes) -> Any:
    """(n, 5, length) int64; every text is closed by an end mark and padded with it."""
    import torch

    encode = networks.make_tokenizer(tokenizer)
    texts = [c for captions in material.captions for c in captions]
    options = {"padding": "max_length", "truncation": True, "max_length": tokenizer["length"]}
    ids = np.array(encode(texts, **options)["input_ids"])
    longest = int((ids != encode.pad_token_id).sum(1).max()) + 1
    ids = ids[:, : min(longest, tokenizer["length"])]

    return torch.from_numpy(ids.reshape(len(material), -1, ids.shape[1]))


def _rounded(network: Any, stored: str) -> dict[str, Any]:
    """Tensors as they will be stored, which the network takes over: scores are of what others will load."""
    from phosphene.training.checkpoint import load_module_state

    kept = packed(network.state_dict(), stored)
    load_module_state(network, unpacked({k: v.numpy() for k, v in kept.items()}), "the network just trained")
    return kept


def _write(
    folder: Path, name: str, network: Any, kept: dict[str, Any], about: dict[str, Any], grid: np.ndarray
) -> None:
    import io

    from PIL import Image
    from safetensors.torch import save

    data = save(kept)
    about |= {
        "weights": sum(w.numel() for w in network.parameters()), "dtype": networks.NETWORKS[name].stored, "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip

    png = io.BytesIO()
    Image.fromarray(grid).save(png, "PNG", optimize=True)
    atomic.write_bytes(folder / f"{name}.safetensors", data)
    atomic.write_text(folder / f"{name}.json", json.dumps(about, indent=1) + "\n")
    atomic.write_text(folder / f"{name}.md", _card(about))
    atomic.write_bytes(folder / f"{name}.png", png.getvalue())


def _card(about: dict[str, Any]) -> str:
    training = about["training"]
    name = about["name"]
    rows = "\n".join(f"| {k} | {v:.4g} |" for k, v in about["scores"].items())
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
