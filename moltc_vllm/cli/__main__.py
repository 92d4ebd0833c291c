"""``python -m moltc_vllm.cli``: the command ``moltc`` without its installed script."""

from moltc_vllm.cli import main

if __name__ == "__main__":
    main()
