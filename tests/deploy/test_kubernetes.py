"""The Kubernetes manifests: against Kubernetes' own schema, against each other, and against the service."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from outrider import catalog
from tests.deploy.files import (
    CONTAINERFILES,
    DEPLOY,
    MANIFESTS,
    ROOT,
    container,
    last,
    manifest,
    pod,
    settings,
    words,
)
from tests.lazy import kubernetes_validate

VERSION = "1.29"  # the oldest that the manifests are for
LABELS = {"app.kubernetes.io/name": "outrider-verifier"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_they_are_what_kubernetes_reads(path: Path) -> None:
    for version in (VERSION, kubernetes_validate.latest_version()):
        for document in yaml.safe_load_all(path.read_text()):
            kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_word_would_be_found() -> None:
    planted = copy.deepcopy(manifest("deployment"))
    planted["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(planted, VERSION, strict=True)


def test_they_mean_the_same_pods() -> None:
    deployment = manifest("deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == LABELS
    assert deployment["selector"]["matchLabels"] == LABELS
    assert manifest("service")["spec"]["selector"] == LABELS
    assert manifest("disruption-budget")["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("network-policy")["spec"]["podSelector"]["matchLabels"] == LABELS


def test_the_port_is_one() -> None:
    [port] = container()["ports"]
    given = settings(container()["args"])
    assert port["containerPort"] == given["port"]
    [service] = manifest("service")["spec"]["ports"]
    [rule] = manifest("network-policy")["spec"]["ingress"]
    probes = [container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe")]
    assert {service["targetPort"], *(p["port"] for p in rule["ports"]), *(p["port"] for p in probes)} == {port["name"]}
    assert f":{given['port']}/" in container()["readinessProbe"]["exec"]["command"][-1]


def test_a_stop_outlasts_the_drain() -> None:
    wait = container()["lifecycle"]["preStop"]["exec"]["command"]
    grace = settings(container()["args"])["grace"]
    assert pod()["terminationGracePeriodSeconds"] >= float(wait[-1]) + grace + 5


def test_as_many_threads_as_processors() -> None:
    resources = container()["resources"]
    assert settings(container()["args"])["threads"] == int(resources["limits"]["cpu"])
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]


def test_the_pod_may_do_little() -> None:
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = pod()["securityContext"]
    assert context["runAsNonRoot"]
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"
    for path in CONTAINERFILES:
        assert last(path, "USER") == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert not pod()["automountServiceAccountToken"]
    assert manifest("network-policy")["spec"]["egress"] == []


def test_every_file_it_names_is_mounted_and_every_mount_is_a_volume() -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container()["volumeMounts"]}
    assert sorted(mounts.values()) == sorted(volume["name"] for volume in pod()["volumes"])
    given = settings(container()["args"])
    assert {str(given[name].parent) for name in ("tokens", "tls_cert", "tls_key")} <= set(mounts)
    assert last(DEPLOY / "Containerfile", "VOLUME") in mounts
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod()["volumes"] if volume["name"] == "models"]
    assert claims == [manifest("models-claim")["metadata"]["name"]]
    claim = manifest("models-claim")["spec"]
    assert "ReadWriteMany" in claim["accessModes"] or manifest("deployment")["spec"]["replicas"] == 1


def test_the_secrets_are_those_that_the_page_makes() -> None:
    made = set(re.findall(r"create secret \w+ ([\w-]+)", (ROOT / "docs" / "operating.md").read_text()))
    named = {volume["secret"]["secretName"] for volume in pod()["volumes"] if "secret" in volume}
    named |= {variable["valueFrom"]["secretKeyRef"]["name"] for variable in container()["env"]}
    assert made == named


def test_the_image_is_this_version_s_and_the_target_is_known() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert container()["image"] == f"outrider:{version[1]}"
    known: dict[str, Any] = {**catalog.cards(), **catalog.recipes()}
    assert settings(container()["args"])["model"] in known
    assert settings(words(DEPLOY / "Containerfile", "CMD"))["model"] in known
