from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from energylens.api import crd
from energylens.api.base import ApiModel, Rule
from energylens.api.schema import structural
from energylens.cli.commands.crds import crds

ROOT = Path(__file__).resolve().parents[3]


def schemas(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from schemas(schema[inner], f"{path}[]")


def version(kind: crd.Kind) -> Any:
    return crd.definition(kind)["spec"]["versions"][0]


KINDS = pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.name)


def test_the_files_in_the_repository_are_those_of_the_models() -> None:
    assert [str(path) for path in crd.stale_files(ROOT)] == [], "run `make generate`"


def test_no_file_is_left_of_a_kind_that_is_gone() -> None:
    found = {p.relative_to(ROOT) for folder in (crd.CRD_FOLDER, crd.CHART_FOLDER) for p in (ROOT / folder).iterdir()}
    assert found == {path for path in crd.generated_files() if path != crd.REFERENCE}


def test_a_changed_file_is_found_and_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert crd.main(["--check"]) == 2
    (tmp_path / "pyproject.toml").touch()
    assert crd.main(["--check"]) == 1
    assert crd.main([]) == 0
    assert crd.main(["--check"]) == 0
    changed = tmp_path / crd.CHART_FOLDER / "llmdeployments.yaml"
    changed.write_text(changed.read_text().replace("minimum: 1", "minimum: 0", 1))
    assert crd.stale_files(tmp_path) == [crd.CHART_FOLDER / "llmdeployments.yaml"]
    assert crd.main(["--check"]) == 1


def test_the_command_writes_what_kubectl_applies(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert CliRunner().invoke(crds, ["--out", str(folder), "--check"]).exit_code == 1
    assert CliRunner().invoke(crds, ["--out", str(folder)]).exit_code == 0
    assert CliRunner().invoke(crds, ["--out", str(folder), "--check"]).exit_code == 0
    assert {yaml.safe_load(path.read_text())["kind"] for path in folder.iterdir()} == {"CustomResourceDefinition"}


@KINDS
def test_every_field_is_described(kind: crd.Kind) -> None:
    schema = version(kind)["schema"]["openAPIV3Schema"]
    bare = [path for path, field in schemas(schema) if not field.get("description") and not path.endswith("[]")]
    assert bare == [".metadata"]


@KINDS
def test_the_schema_is_structural(kind: crd.Kind) -> None:
    for path, field in schemas(version(kind)["schema"]["openAPIV3Schema"]):
        assert "type" in field or field.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "patternProperties", "propertyNames"} & set(
            field
        ), path
        assert not ("properties" in field and "additionalProperties" in field), path
        assert field.get("type") != "number", f"{path}: Kubernetes APIs have no floats"


@KINDS
def test_lists_and_texts_of_spec_are_bounded_so_that_rules_stay_cheap(kind: crd.Kind) -> None:
    spec = version(kind)["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path, field in schemas(spec):
        if field.get("type") == "array":
            assert "maxItems" in field, path
            assert field.get("x-kubernetes-list-type") in ("atomic", "set", "map"), path
        if field.get("type") == "string" and "enum" not in field:
            assert "maxLength" in field, path
        if "additionalProperties" in field:
            assert "maxProperties" in field, path


@KINDS
def test_a_status_refuses_nothing_that_another_version_of_the_operator_writes(kind: crd.Kind) -> None:
    status = version(kind)["schema"]["openAPIV3Schema"]["properties"]["status"]
    for path, field in schemas(status):
        assert not {"enum", "minimum", "pattern", "default", "x-kubernetes-validations", "maxLength"} & set(field), path
        assert field.get("required", []) in ([], ["type"], ["uid"]), path
    conditions = status["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@KINDS
def test_every_rule_has_a_message_and_stands_in_the_schema(kind: crd.Kind) -> None:
    found = [
        r for _, f in schemas(version(kind)["schema"]["openAPIV3Schema"]) for r in f.get("x-kubernetes-validations", [])
    ]
    assert len(found) >= 3
    assert all(rule["rule"] and rule["message"] and rule["messageExpression"] for rule in found)


def test_the_rules_that_users_meet_first_are_there() -> None:
    text = crd.crd_text(crd.LLM_DEPLOYMENT)
    for rule in (
        "has(self.job) ? !has(self.requestsPerSecond)",
        "self.maxGPUsPerReplica <= self.maxGPUs",
        "has(self.persistentVolumeClaim) != has(self.hostPath)",
        "size(self.metadata.name) <= 52",
        "(self.mode == 'Fixed') == has(self.wattsPerGPU)",
        "quantity(string(self)).isGreaterThan(quantity('0'))",
    ):
        assert rule in text


@KINDS
def test_columns_lead_to_fields(kind: crd.Kind) -> None:
    properties = {path for path, _ in schemas(version(kind)["schema"]["openAPIV3Schema"])}
    for column in kind.columns:
        if not column.path.startswith((".metadata", ".status.conditions[?")):
            assert column.path in properties


def test_a_rule_over_the_whole_object_is_for_creation_only() -> None:
    for kind in crd.KINDS:
        assert all(rule.only_on_create for rule in kind.model.rules)


def test_text_that_helm_would_take_for_a_template_is_refused() -> None:
    class Odd(ApiModel):
        """An object with {{ in its description."""

    with pytest.raises(ValueError, match="Helm takes for a template"):
        crd.chart_template(crd.Kind(_kind_with(Odd), "odds", "odd", ()))


def _kind_with(spec: type[ApiModel]) -> type[ApiModel]:
    from pydantic import Field, create_model

    return create_model(
        "Odd",
        __base__=ApiModel,
        __doc__="Odd.",
        api_version=(str, Field(description="v")),
        kind=(str, Field(description="k")),
        metadata=(spec, Field(description="m")),
        spec=(spec, Field(description="about {{ braces")),
        status=(spec, Field(description="s")),
    )


def test_a_field_without_description_is_refused() -> None:
    class Undescribed(ApiModel):
        """Something."""

        size: int

    with pytest.raises(ValueError, match=r"Undescribed.size has no description"):
        structural(Undescribed)


def test_a_rule_for_creation_lets_updates_pass() -> None:
    entry = Rule("s", "self.a", "'m'", lambda _: None, only_on_create=True).to_schema()
    assert entry["rule"] == "oldSelf.hasValue() || (self.a)"
    assert entry["optionalOldSelf"] is True
