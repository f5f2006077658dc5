"""The chart, rendered by Helm's own library without a cluster."""

import copy
import functools
import pathlib

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/catserve"
VALUES = ROOT / "deploy/values"
RENDERED = ROOT / "deploy/rendered"
RELEASE = {"name": "catserve", "namespace": "serving"}
HELM = f"Helm {helm_python.helm_sdk_version()} (helm-python-sdk {helm_python.__version__})"

# The least that a release needs.
LEAST = {"model": {"pvc": {"claimName": "models"}}}


@functools.cache
def loaded():
    return helm_python.Chart.load(CHART)


def merged(base, over):
    """`over` laid over `base`, as Helm does with values."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested else copy.deepcopy(value)
    return result


def manifests(values):
    """Rendered text by template, empty ones and notes left out. Checks the schema, as install does.

    Raises helm_python.HelmError with Helm's message if the chart refuses the values.
    """
    loaded().validate_schema(values)
    rendered = loaded().render(values, **RELEASE)
    texts = {pathlib.Path(name).relative_to("catserve/templates"): text.strip()
             for name, text in sorted(rendered.items()) if name.endswith(".yaml")}
    return {str(name): text for name, text in texts.items() if text}


def objects(values):
    """Every object of the release."""
    return [o for text in manifests(values).values() for o in yaml.safe_load_all(text) if o]


class Release:
    """A release of the least values with some laid over; finds its objects."""

    def __init__(self, **values):
        self.objects = objects(merged(LEAST, values))

    def find(self, kind, name="catserve"):
        """The one object of that kind and name, or None."""
        found = [o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        return found[0] if found else None

    @property
    def pod(self):
        return self.find("Deployment")["spec"]["template"]

    @property
    def container(self):
        return self.pod["spec"]["containers"][0]

    @property
    def config(self):
        return yaml.safe_load(self.find("ConfigMap")["data"]["catserve.yaml"])


def value_sets():
    """Name and values of every set in deploy/values."""
    return {p.stem: yaml.safe_load(p.read_text()) for p in sorted(VALUES.glob("*.yaml"))}


def rendered_set(name, values):
    """The file deploy/rendered/NAME.yaml."""
    parts = [f"# deploy/values/{name}.yaml as Helm renders it; tools/check_deploy.sh --write"]
    parts += [f"---\n# {template}\n{text}" for template, text in manifests(values).items()]
    lines = [line.rstrip() for line in "\n".join(parts).splitlines()]
    return "\n".join(line for line in lines if line) + "\n"
