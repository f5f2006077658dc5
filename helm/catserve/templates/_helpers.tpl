{{/* Names and labels. Names leave room for suffixes. */}}
{{- define "catserve.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "catserve.fullname" -}}
{{- $name := include "catserve.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ default $both .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "catserve.selector" -}}
app.kubernetes.io/name: {{ include "catserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "catserve.testSelector" -}}
app.kubernetes.io/name: {{ include "catserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "catserve.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "catserve.labels" -}}
{{ include "catserve.selector" . }}
{{ include "catserve.commonLabels" . }}
{{- end }}

{{- define "catserve.serviceAccountName" -}}
{{ default (ternary (include "catserve.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "catserve.image" -}}
{{- $tag := default (ternary (printf "%s-cuda" .Chart.AppVersion) .Chart.AppVersion (gt (int .Values.gpu.count) 0)) .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{/* What speaks h2c to a load balancer must not be told so when it is TLS. */}}
{{- define "catserve.appProtocol" -}}
{{ ternary "https" "kubernetes.io/h2c" (not (empty .Values.tls.secretName)) }}
{{- end }}

{{/* A CPU quantity, 3500m or 4, in whole threads, rounded up. */}}
{{- define "catserve.threads" -}}
{{- $cpu := dig "requests" "cpu" "0" .Values.resources | toString -}}
{{- if gt (int .Values.server.threads) 0 -}}
{{ .Values.server.threads }}
{{- else if hasSuffix "m" $cpu -}}
{{ div (add (trimSuffix "m" $cpu | int) 999) 1000 }}
{{- else -}}
{{ $cpu | float64 | ceil | int }}
{{- end -}}
{{- end }}

{{- define "catserve.flags" -}}
{{- $flags := merge (dict "threads" (include "catserve.threads" .)) .Values.server -}}
- --config=/etc/catserve/catserve.yaml
- --model={{ printf "/model/%s" .Values.model.path | trimSuffix "/" }}
- --listen_address={{ .Values.listenHost }}:8500
- --metrics_address={{ .Values.listenHost }}:9500
- --backend={{ ternary "cuda" "cpu" (gt (int .Values.gpu.count) 0) }}
{{- range $name, $value := $flags }}
{{- /* Numbers come as floating point: whole ones are written out, however large. */}}
{{- $whole := and (not (kindIs "string" $value)) (eq (float64 $value) (floor $value)) }}
- --{{ snakecase $name }}={{ ternary ($value | int64) $value $whole }}
{{- end }}
{{- end }}

{{/* preStop, then the server's drain, then a margin to end in. */}}
{{- define "catserve.gracePeriod" -}}
{{ add (int .Values.shutdown.preStopSeconds) (int .Values.server.drainSeconds) (int .Values.shutdown.marginSeconds) }}
{{- end }}

{{/* catserved's configuration file: what the chart decides, then what the values add. */}}
{{- define "catserve.config" -}}
health:
  address: {{ printf "%s:8501" .Values.listenHost | quote }}
{{- if .Values.tls.secretName }}
tls:
  certificate_file: /etc/catserve-tls/tls.crt
  key_file: /etc/catserve-tls/tls.key
  {{- if .Values.tls.mutual }}
  client_ca_file: /etc/catserve-tls/ca.crt
  {{- end }}
{{- else }}
plaintext_allowed: true
{{- end }}
{{- if .Values.tokens.secretName }}
access:
  tokens_file: /etc/catserve-tokens/tokens.yaml
{{- end }}
{{- with .Values.config }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "catserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "catserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "catserve.probe" -}}
grpc:
  port: 8501
  service: {{ .service }}
periodSeconds: {{ .probes.periodSeconds }}
timeoutSeconds: {{ .probes.timeoutSeconds }}
{{- end }}
