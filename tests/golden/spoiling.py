"""Bundles to be spoilt: a copy on disk, and its manifest with any value replaced."""

import copy
import json

DELETED = object()


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def write_manifest(folder, data):
    (folder / "manifest.json").write_text(json.dumps(data), encoding="utf-8")


def data_file(folder, stem="five"):
    (path,) = folder.glob(f"{stem}-*.safetensors")
    return path


def replaced(tree, path, value):
    if not path:
        return value
    tree = copy.deepcopy(tree)
    at = tree
    for key in path[:-1]:
        at = at[key]
    if value is DELETED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return tree
