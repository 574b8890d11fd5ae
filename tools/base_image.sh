#!/bin/sh
# A stand-in for the image python:3.13-slim, made of Debian's packages alone: to build and try our
# image where no image registry can be reached. Not for use: it trusts whom this machine trusts.
# Needs root, debootstrap, and the engine (ENGINE, podman by default).
set -eu
engine=${ENGINE:-podman}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv trixie "$place"
ln -s python3 "$place/usr/bin/python"
cp /etc/ssl/certs/ca-certificates.crt "$place/etc/ssl/certs/"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$place/etc/pip.conf"
rm -rf "$place"/var/cache/apt/* "$place"/var/lib/apt/lists/*
tar --create --directory "$place" . | "$engine" import - python:3.13-slim
