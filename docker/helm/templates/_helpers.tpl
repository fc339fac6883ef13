{{- define "youtu.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 44 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* Called with (list . "triton"): what tells the pods of a part. */}}
{{- define "youtu.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "youtu.labels" -}}
{{ include "youtu.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- define "youtu.image" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "youtu.pod" -}}
# Else Kubernetes sets YOUTU_PORT and the like for a service of this name, and stops the start.
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "youtu.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings of both parts. What runs may take as long as the longest answer. */}}
{{- define "youtu.settings" -}}
- {name: YOUTU_REQUEST_TIMEOUT, value: {{ .Values.requestTimeout | quote }}}
- {name: YOUTU_DRAIN_TIMEOUT, value: {{ add .Values.requestTimeout 5 | quote }}}
{{- range $name, $value := .Values.settings }}
- {name: YOUTU_{{ upper $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}

{{- define "youtu.keySecret" -}}
{{- .Values.keys.existingSecret | default (printf "%s-key" (include "youtu.name" .)) }}
{{- end }}

{{- define "youtu.check" -}}
{{- $keys := .Values.keys }}
{{- $given := add (ternary 1 0 $keys.disabled) (ternary 1 0 (ne $keys.existingSecret "")) (ternary 1 0 (ne $keys.value "")) }}
{{- if ne (int $given) 1 }}
{{- fail "keys: give one of existingSecret (a Secret with the API key), value (the key itself) and disabled: true (everybody is let in)" }}
{{- end }}
{{- if and .Values.rates.redisSecret (not .Values.rates.limit) }}
{{- fail "rates.redisSecret: there is no rates.limit to count" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
{{- fail (printf "autoscaling.maxReplicas: %d is less than minReplicas, %d" (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
{{- end }}
{{- if and .Values.monitoring.enabled (not .Values.keys.disabled) (not .Values.monitoring.keySecret) }}
{{- fail "monitoring.keySecret: Prometheus needs an API key to read the frontends' metrics; name a Secret that has one, in the namespace of the release" }}
{{- end }}
{{- end }}
