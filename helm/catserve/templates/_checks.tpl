{{/* What a schema cannot say: values that exclude or need each other. Each message names its keys. */}}
{{- define "catserve.checks" -}}
{{- $sources := list -}}
{{- if .Values.model.pvc.claimName }}{{ $sources = append $sources "model.pvc.claimName" }}{{ end -}}
{{- if .Values.model.image.reference }}{{ $sources = append $sources "model.image.reference" }}{{ end -}}
{{- if .Values.model.download.url }}{{ $sources = append $sources "model.download.url" }}{{ end -}}
{{- if ne (len $sources) 1 -}}
{{- fail (printf "give exactly one of model.pvc.claimName, model.image.reference, model.download.url; given: %s" ($sources | join ", " | default "none")) -}}
{{- end -}}
{{- if and .Values.model.download.url (not .Values.model.download.sha256) -}}
{{- fail "model.download.sha256 is missing: the archive is only started if it is the one you meant" -}}
{{- end -}}
{{- if and .Values.tls.mutual (not .Values.tls.secretName) -}}
{{- fail "tls.mutual needs tls.secretName: without TLS callers show no certificate" -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled .Values.tls.secretName -}}
{{- fail "inferencePool.enabled needs plaintext behind the gateway: leave tls.secretName empty, or route by the Service" -}}
{{- end -}}
{{- if and .Values.tests.enabled .Values.tls.mutual -}}
{{- fail "tests.enabled: helm test has no certificate to show, and tls.mutual asks for one; set tests.enabled to false" -}}
{{- end -}}
{{- if and .Values.tests.enabled .Values.tokens.secretName (not .Values.tests.tokenSecretName) -}}
{{- fail "tests.tokenSecretName is missing: tokens.secretName is set, and helm test calls too (or set tests.enabled to false)" -}}
{{- end -}}
{{- if and (eq (int .Values.strategy.maxSurge) 0) (eq (int .Values.strategy.maxUnavailable) 0) -}}
{{- fail "strategy.maxSurge and strategy.maxUnavailable are both 0: an update could never move" -}}
{{- end -}}
{{- if lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" -}}
{{- end -}}
{{- if hasKey (default dict .Values.resources.limits) .Values.gpu.resource -}}
{{- fail (printf "resources.limits.%s: write gpu.count instead" .Values.gpu.resource) -}}
{{- end -}}
{{- end }}
