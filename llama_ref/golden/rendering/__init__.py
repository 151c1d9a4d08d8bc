"""A report as files: one page for people, one XML file for build servers.

page.py       the page: its sections in reading order, and what may not leave it
    cause.py      what is wrong, in words and bars       diagram.py   one layer as a drawing
    depth.py      error over depth                       profile.py   where in a tap
    grid.py       every tap of a case                    tables.py    logits, numbers, the rest
    terms.py      taps and numbers in words              scales.py    log axes, levels, long axes
    markup.py     elements, escaped by construction      svg.py       shapes      page.css
junit.py      a test for each tap

The page needs nothing but itself: no script, no font, no network. The terminal is the business of
the command line.
"""

from llama_ref.golden.rendering.junit import junit_xml as junit_xml
from llama_ref.golden.rendering.page import html_page as html_page
