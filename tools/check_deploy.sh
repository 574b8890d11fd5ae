#!/bin/sh
# What the tests do not look at for want of the tools: the chart and its manifests with helm and
# Kubernetes' own schemas, the workflows with actionlint. Run through `make deploy`, which fetches the
# tools by the package managers that are here (go, pip) into .venv.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
PATH=$bin:$PATH
get() {
  command -v "$1" >/dev/null && return
  command -v go >/dev/null || { echo "needs $1 or go" >&2; exit 1; }
  echo "fetching $1"
  GOBIN=$bin go install "$2"
}
get helm helm.sh/helm/v3/cmd/helm@v3.22.0
get actionlint github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
if ! command -v kubernetes-validate >/dev/null; then
  python -m venv .venv/kubernetes-validate
  .venv/kubernetes-validate/bin/pip --quiet install kubernetes-validate
  ln -sf ../kubernetes-validate/bin/kubernetes-validate "$bin/kubernetes-validate"
fi
helm lint --strict --quiet container-deploy/helm/tunnel-rs
container-deploy/render.sh --check
kubernetes-validate --strict --quiet container-deploy/kubernetes/*.yaml
actionlint .github/workflows/*.yml
shellcheck install.sh container-deploy/*.sh tools/*.sh .ci/run
echo "charts, manifests, workflows and scripts: good"
