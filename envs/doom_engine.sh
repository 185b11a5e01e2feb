#!/bin/sh
# ViZDoom starts this in place of its engine, which writes into the current folder, and knows no other way to say where.
# $0 is a link in the engine's folder (envs/doom_engine.py); the arguments are kept there for envs/doom_keeper.py.
cd "${0%/*}" && printf '%s\n' "$@" >arguments && exec "$(readlink -f vizdoom)" "$@"
