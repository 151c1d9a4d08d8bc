"""The directive `command-help`: what a verb of the command line says of itself.

```{command-help} generate
```
"""

from contextlib import redirect_stdout
from io import StringIO

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from llama_ref.__main__ import main


class CommandHelp(SphinxDirective):
    required_arguments = 1

    def run(self):
        with redirect_stdout(StringIO()) as said:
            code = main([self.arguments[0], "--help"])
        if code:
            raise self.error(f"llama-ref {self.arguments[0]} --help ends with exit code {code}")
        text = said.getvalue().rstrip()
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
