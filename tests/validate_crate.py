"""Validates an RO-Crate with roc-validator, offline, in an environment of its own: its rich is older than the linters'.

    python validate_crate.py FOLDER PROFILE SEVERITY

prints a line for each issue. The one document that the validator would fetch, RO-Crate 1.1's JSON-LD context, is put
together from the context of 1.3, which rocrate brings: all of 1.1's words are in it; four of them name other addresses.
"""

import json
import sys
from importlib import resources
from typing import Any

from requests import Response
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
BIOSCHEMAS = "https://bioschemas.org/"
IN_1_1 = {
    "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow",
    "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
    "input": f"{BIOSCHEMAS}ComputationalWorkflow#input",
    "output": f"{BIOSCHEMAS}ComputationalWorkflow#output",
}


def answer(_: HttpRequester, address: str, **__: Any) -> Response:
    """What the context's address would answer; 404 for any other."""
    response = Response()
    response.status_code = 200 if address == CONTEXT else 404
    response.headers["content-type"] = "application/ld+json"
    bundled = json.loads(resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text())
    response._content = json.dumps({"@context": bundled["@context"] | IN_1_1}).encode()
    return response


def main(folder: str, profile: str, severity: str) -> None:
    HttpRequester.get = answer
    settings = services.ValidationSettings(
        rocrate_uri=folder,
        profile_identifier=profile,
        requirement_severity=models.Severity[severity],
        skip_availability_check=True,
        offline=True,
    )
    for issue in services.validate(settings).get_issues():
        print(f"{issue.severity.name} {issue.check.identifier}: {issue.message} [{issue.violatingEntity}]")


main(*sys.argv[1:])
