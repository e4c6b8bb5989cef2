"""Holds the samples against the schemas of Kubernetes and Compose: check.py KUBERNETES.yaml COMPOSE.yaml

Prints one JSON object: the documents as they were read, what is wrong with them, and which made-up fault was not
noticed (there must be none: a check that can't fail shows nothing).
"""

import copy
import json
import sys

import compose_spec
import kubernetes_validate
import yaml

# The first that has ReadWriteOncePod for good, and the newest that the package knows.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def fault_of_kubernetes(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


def fault_of_compose(text):
    try:
        compose_spec.PyCompose.from_yaml(text).validate()
    except ValueError as error:
        return str(error)
    return None


def spoilt(document):
    """The same with a key that no schema has, and with one of another type."""
    unknown, mistyped = copy.deepcopy(document), copy.deepcopy(document)
    unknown["metadata"]["nmae"] = "x"
    mistyped["metadata"]["labels"] = ["x"]
    return [unknown, mistyped]


def kubernetes(path):
    with open(path, encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    faults, unnoticed = [], []
    for document in documents:
        name = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
        for version in VERSIONS:
            fault = fault_of_kubernetes(document, version)
            if fault:
                faults.append(f"{name}, Kubernetes {version}: {fault}")
            if not all(fault_of_kubernetes(wrong, version) for wrong in spoilt(document)):
                unnoticed.append(f"{name}, Kubernetes {version}")
    return {"documents": documents, "versions": VERSIONS, "faults": faults, "unnoticed": unnoticed}


def compose(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    document = yaml.safe_load(text)
    fault = fault_of_compose(text)
    unnoticed = []
    for name, service in document["services"].items():
        wrong = copy.deepcopy(document)
        wrong["services"][name]["comand"] = service.get("command", "x")
        if fault_of_compose(yaml.safe_dump(wrong)) is None:
            unnoticed.append(name)
    return {"document": document, "faults": [fault] if fault else [], "unnoticed": unnoticed}


print(json.dumps({"kubernetes": kubernetes(sys.argv[1]), "compose": compose(sys.argv[2])}))
