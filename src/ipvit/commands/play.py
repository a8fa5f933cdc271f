"""``ipvit play``: the playground in a browser."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from typing import Annotated

from cyclopts import Parameter

from ipvit.commands.options import Switch
from ipvit.core.run_config import Answers
from ipvit.core.terminal import Terminal
from ipvit.errors import InputError
from ipvit.models.names import split_label
from ipvit.models.zoo.bundled import BUNDLED, bundled_models

FIRST = ("demo:deit_micro", "demo:resnet_micro")
"""The bundled networks that are shown first."""


def play(
    *,
    model: Annotated[list[str] | None, Parameter(name=("--model", "-m"), negative="")] = None,
    data: Annotated[str | None, Parameter(name=("--data", "-d"))] = None,
    salience: str | None = None,
    answers: Answers | None = None,
    device: str = "auto",
    port: int = 0,
    browser: Switch = True,
) -> int:
    """Change a photo and watch two networks, in a browser, on this computer only.

    Parameters
    ----------
    model
        [LABEL=]NAME[@WEIGHTS]; repeatable. Where fewer than two are given, the bundled networks join.
        [default: demo:deit_micro demo:resnet_micro, and the other bundled ones to choose from]
    data
        Whose photos to choose from, as for the experiments. [default: drawn samples]
    salience
        NAME of the network whose attention says what is salient. [default: the first one that has attention]
    answers
        Choose among all outputs, or among the classes of --data. [default: as the data's protocol says]
    device
        auto, cpu, cuda, cuda:1, mps.
    port
        On 127.0.0.1; 0 takes a free one.
    browser
        Open the page.
    """
    from ipvit.data.loading import load_dataset
    from ipvit.engine.device import pick_device
    from ipvit.engine.diagnosis import among_in_words
    from ipvit.models.label_mapping import answering
    from ipvit.models.loading import load_model
    from ipvit.networks import models_named
    from ipvit.play import Playground, PlayServer, Shelf
    from ipvit.play.playground import salience_model

    if answers is not None and data is None:
        raise InputError("--answers is for the classes of --data; which data?")
    photos = None if data is None else load_dataset(data)
    shelf = Shelf(photos)
    given = [split_label(text) for text in model or []]
    names = [name for _, name in given]
    bundled = [name for source in BUNDLED for name in bundled_models(source)] if len(names) < 2 else []
    more = [name for name in dict.fromkeys([*FIRST, *bundled]) if name not in names] if bundled else []
    models = [
        one for label, name in given for one in models_named(name, label=label, class_names=photos, device=device)
    ]
    models += [one for one in map(load_model, more) if one.can("logits")]
    if photos is not None:
        models = [answering(one, photos, answers) for one in models]
        for one in models:
            for sentence in among_in_words(one, photos):
                Terminal(stderr=True).print(f"{one.name}: {sentence}", soft_wrap=True, highlight=False)
    judge = salience_model(models if salience is None else [load_model(salience)])
    if salience is not None and judge is None:
        raise InputError(f"--salience: {salience} has no attention to the patches; a vision transformer has")
    with PlayServer(Playground(models, shelf, salience=judge, device=pick_device(device)), port) as server:
        Terminal().print(f"playground: {server.address}", soft_wrap=True, highlight=False)
        Terminal().print("Ctrl-C stops it.", highlight=False)
        if browser:  # some browsers of a terminal return only when they are left
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
