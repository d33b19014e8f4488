"""Print the instruction table as Markdown."""

import sys

from iovirt_dist.hypervisor.instructions.markdown import render

sys.stdout.write(render())
