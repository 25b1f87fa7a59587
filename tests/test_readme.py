"""The README's example does what the README says it does."""

from __future__ import annotations

import re

from pages import CONFIG, ROOT

import clbook
from clbook.methods import EWC

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_of_a_method_is_short_and_says_what_the_text_says() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(example.strip().splitlines()) <= 20
    names: dict = {"__name__": "readme"}
    exec(example, names)
    table = names["result"].summary()
    accuracy, forgetting = table["accuracy"].to_numpy(), table["forgetting"].to_numpy()
    assert len(names["result"].runs) == 9, "nine runs"
    assert forgetting[0] > forgetting[1] > forgetting[2], "forgetting falls as the springs get stiffer"
    assert max(accuracy) < accuracy[0] + 5, "but accuracy does not rise"
    ewc = clbook.run(
        names["scenario"], EWC(lam=100.0), seeds=3, net=clbook.mlp(64, 10, (64,)), epochs=10, batch_size=32
    )
    assert ewc.summary()["accuracy"][0] > accuracy[0] + 7, "EWC gains about ten points"


def test_names_the_repository_of_the_configuration() -> None:
    url = CONFIG["repository"]["url"]
    assert f"git clone {url}\n" in README and f"git+{url}\n" in README


def test_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets


def test_links_to_files_arrive() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links and not missing, missing
