import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads of two processes share the cores
