"""Language-model agents for `coars_env`: two LoRA policies on one frozen base, trained together by CoARS."""
