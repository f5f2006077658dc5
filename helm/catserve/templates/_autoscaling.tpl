{{/* How fast to follow the load: up at once, down slowly, for a drained replica's cache is lost. */}}
{{- define "catserve.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationSeconds }}
  policies:
    - type: Percent
      value: {{ .scaleUp.percent }}
      periodSeconds: {{ .scaleUp.periodSeconds }}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationSeconds }}
  policies:
    - type: Pods
      value: {{ .scaleDown.pods }}
      periodSeconds: {{ .scaleDown.periodSeconds }}
{{- end }}

{{- define "catserve.podsMetric" -}}
type: Pods
pods:
  metric:
    name: {{ .name }}
  target:
    type: AverageValue
    averageValue: {{ .value | quote }}
{{- end }}

{{- define "catserve.externalMetric" -}}
type: External
external:
  metric:
    name: {{ .name }}
    {{- with .matchLabels }}
    selector:
      matchLabels:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  target:
    type: AverageValue
    averageValue: {{ .value | quote }}
{{- end }}

{{- define "catserve.kedaTrigger" -}}
type: prometheus
metricType: AverageValue
metadata:
  serverAddress: {{ .address }}
  query: {{ .query | quote }}
  threshold: {{ .value | quote }}
{{- end }}
