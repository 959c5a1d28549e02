"""Runs in `.venv-packaging`: renders the chart with Helm's own engine, and checks objects against Kubernetes' schemas.

Reads ``{"values": {…}, "also": […]}`` on standard input, where ``also`` are more objects to check; writes
``{"objects": […]}`` or ``{"refused": "why"}``.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject

CHART = Path(__file__).parents[2] / "packaging" / "helm" / "borough"
KUBERNETES = ("1.27", "1.32", "1.37")


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="tried", namespace="agents")
    documents = [yaml.safe_load_all(text) for name, text in files.items() if name.endswith(".yaml")]
    return [one for of_file in documents for one in of_file if one]


def check(one: dict[str, Any]) -> None:
    """Raise unless every member of the object is one that the API server knows."""
    if one["kind"] == "ScaledObject":
        known = ScaledObject.model_validate(one).model_dump(by_alias=True, exclude_none=True, mode="json")
        if known != one:
            raise ValueError(f"KEDA does not know all of {one}")
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(one, version, strict=True)


def main() -> None:
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin)
    try:
        objects = rendered(asked["values"])
    except helm_python.HelmError as refused:
        sys.stdout.write(json.dumps({"refused": str(refused)}))
        return
    for one in [*objects, *asked.get("also", [])]:
        check(one)
    sys.stdout.write(json.dumps({"objects": objects}))


main()
