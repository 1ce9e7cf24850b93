"""The gates of an evaluation as JUnit XML, which CI servers show beside the tests.

JUnit has no schema of its own; the file follows both that are in use, Ant's and that of Jenkins' xUnit plugin.
"""

import re
from datetime import datetime, timezone
from xml.etree import ElementTree

from smn_cli.errors import printable
from smn_cli.reports.evaluation import Evaluation

SUITE, CLASS_NAME = "smn eval", "smn.eval"


def junit_xml(evaluation: Evaluation, *, now: datetime | None = None) -> bytes:
    """A test case a gate; one that did not hold is a failure that tells what was expected and what was found.

    Args:
        evaluation: with its gates.
        now: when it ended; by default this moment.
    """
    taken = f"{evaluation.seconds:.3f}"
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        id="0",
        name=SUITE,
        package="smn",
        tests=str(len(evaluation.gates)),
        failures=str(len(evaluation.failed)),
        errors="0",
        skipped="0",
        time=taken,
        # without a zone, as Ant writes it; not the machine's name, which says nothing about the result
        timestamp=(now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname="localhost",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in {"arch": evaluation.arch, "verdict": evaluation.headline, **evaluation.facts}.items():
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    for gate in evaluation.gates:
        case = ElementTree.SubElement(suite, "testcase", name=_text(gate.name), classname=CLASS_NAME, time="0")
        if not gate.passed:
            failure = ElementTree.SubElement(case, "failure", message=_text(gate.told), type="GateError")
            failure.text = _text(gate.told)
    ElementTree.SubElement(suite, "system-out").text = "\n".join(_text(gate.told) for gate in evaluation.gates)
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _text(value: str) -> str:
    """What XML 1.0 can hold; a token has no space twice, nor at its ends."""
    return re.sub(r" +", " ", printable(value)).strip()
