"""The directive `golden-cases`: what an op has to get right, told by its stored golden cases.

    ```{golden-cases} rope
    ```

Each case of llama_ref/golden/suite/cases/<op>.json says why it exists and which classic mistakes it
catches; that is documentation, so it is shown here and written nowhere twice.
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "llama_ref" / "golden" / "suite" / "cases"


class GoldenCases(SphinxDirective):
    required_arguments = 1

    def run(self):
        path = GOLDENS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        stored = json.loads(path.read_text(encoding="utf-8"))
        makers = ", ".join(f"{name} {version}" for name, version in stored["made_by"].items())
        said = f"Computed by others ({makers}), never by the code under test."
        return [
            nodes.paragraph("", said),
            nodes.definition_list("", *map(described, stored["cases"]), classes=["golden-cases"]),
        ]


def described(case):
    """Return one case as a term and what there is to say about it."""
    term = nodes.term("", "", nodes.literal("", case["function"]), nodes.Text("  " + case["name"]))
    said = [nodes.paragraph("", sentence(case["why"]))]
    if case["catches"]:
        said.append(nodes.paragraph("", sentence("catches: " + " · ".join(case["catches"]))))
    said.append(nodes.paragraph("", sentence("flags: " + " · ".join(case["flags"]))))
    return nodes.definition_list_item("", term, nodes.definition("", *said))


def sentence(text):
    return text[:1].upper() + text[1:] + "."


def setup(app):
    app.add_directive("golden-cases", GoldenCases)
    return {"parallel_read_safe": True}
