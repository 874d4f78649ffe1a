"""The JobSet for GKE: what reaches the cluster is what was asked for, word by word."""

import json
import re

import pytest

from tests.launch.checkout import HARD, ROOT, script

FLAGS = ("--name=mlm", "--image=i")


def manifest(checkout, *flags, command=("true",)) -> str:
    script(checkout.bin / "kubectl", '#!/bin/sh\necho "$*" >"$RECORD/kubectl"\ncat >"$RECORD/manifest"\n')
    done = checkout.run("launch/gke/launch.sh", *FLAGS, *flags, "--", *command)
    assert done.returncode == 0, done.stderr
    assert (checkout.record / "kubectl").read_text() == "apply -f -\n"
    return (checkout.record / "manifest").read_text()


def field(text: str, name: str) -> str:
    [value] = re.findall(rf"^\s*{name}: (.*)$", text, re.MULTILINE)
    return value


def test_command_arrives_unchanged(checkout):
    text = manifest(checkout, "--type=tpu-v5-lite-podslice", "--topology=4x4", command=("door", *HARD))
    words = json.loads(field(text, "command"))
    # Kubernetes expands $(NAME) and makes one $ of two.
    assert all(re.search(r"(?<!\$)(\$\$)*\$\(", word) is None for word in words)
    assert [word.replace("$$", "$") for word in words] == ["door", *HARD, "--distributed"]


@pytest.mark.parametrize(
    ("flags", "hosts", "chips"),
    [
        (("--type=tpu-v5-lite-podslice", "--topology=4x4"), 4, 4),
        (("--type=tpu-v5-lite-podslice", "--topology=2x4"), 1, 8),
        (("--type=tpu-v5-lite-podslice", "--topology=2x4", "--chips-per-host=4"), 2, 4),
        (("--type=tpu-v6e-slice", "--topology=1x1"), 1, 1),
        (("--type=tpu-v5p-slice", "--topology=2x2x1"), 1, 4),
        (("--type=tpu-v4-podslice", "--topology=2x4x4"), 8, 4),
    ],
)
def test_hosts_follow_from_the_topology(checkout, flags, hosts, chips):
    text = manifest(checkout, *flags, "--slices=3", "--retries=5")
    assert field(text, "completions") == field(text, "parallelism") == str(hosts)
    assert field(text, "google.com/tpu") == str(chips)
    assert (field(text, "replicas"), field(text, "maxRestarts")) == ("3", "5")


def test_only_spot_asks_for_spot_nodes(checkout):
    flags = ("--type=tpu-v6e-slice", "--topology=2x4")
    assert "gke-spot" not in manifest(checkout, *flags)
    assert field(manifest(checkout, *flags, "--spot"), "cloud.google.com/gke-spot") == '"true"'


def test_a_bucket_is_mounted_only_where_one_is_named(checkout):
    flags = ("--type=tpu-v6e-slice", "--topology=2x4")
    assert "gcsfuse" not in manifest(checkout, *flags)
    text = manifest(checkout, *flags, "--bucket=my-bucket")
    assert field(text, "bucketName") == "my-bucket"
    assert "mountPath: /bucket" in text
    assert field(text, "gke-gcsfuse/volumes") == '"true"'


def test_preempted_pods_restart_and_failed_ones_do_not(checkout):
    text = manifest(checkout, "--type=tpu-v6e-slice", "--topology=2x4")
    assert field(text, "values") == "[1, 2]"
    assert field(text, "onJobFailureReasons") == "[PodFailurePolicy]"
    assert "@" not in text


def test_image_is_made_of_what_the_checkout_has():
    text = (ROOT / "launch" / "gke" / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    assert copied and all((ROOT / name).exists() for names in copied for name in names)
